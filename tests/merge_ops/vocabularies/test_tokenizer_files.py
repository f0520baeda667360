"""Tokenizers of merged checkpoints, and vocabularies that cannot be merged."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from merge_ops.checkpoints.configs.config import with_vocabulary
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, CompatibilityError
from merge_ops.jobs.statistics import task_vector_statistics
from merge_ops.plans.plan_json import plan_json
from merge_ops.provenance.model_card import model_card
from merge_ops.vocabularies.tokenizer_files import is_tokenizer_file, renumbered
from merge_ops.vocabularies.tokenizers import read_tokenizer
from tests.models import checkpoint_factory as factory
from tests.models.vocabulary_models import (
    ARITHMETIC,
    EMBEDDING,
    UNION,
    merged,
    opened,
    plan,
)


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    return factory.write_vocabulary_family(tmp_path_factory.mktemp("family"), factory.LLAMA)


# --------------------------------------------------------------------------------------- files


def test_tokens_are_those_that_transformers_loads(tmp_path):
    """Also those that only tokenizer_config.json adds, in the order of loading."""
    factory.write_tokenizer(tmp_path, added=["茯苓"])
    late = {"content": "<late>", "special": False, "normalized": True}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "mask_token": "<mask>",
        "eos_token": "<|endoftext|>",
        "pad_token": {"content": "<pad>", "__type": "AddedToken"},
        "bos_token": "<bos>",
        "additional_special_tokens": ["<e1>"],
        "added_tokens_decoder": {"260": late},
    }
    factory.write_json(tmp_path / "tokenizer_config.json", config)
    save_file({EMBEDDING: torch.zeros(300, 2)}, tmp_path / "model.safetensors")
    found = read_tokenizer(open_checkpoint("x", FolderSource(tmp_path)))
    assert found.tokens == AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    assert found.tokens["<e1>"] == 264


def test_a_unions_files(vocabularies, tmp_path):
    folders = {name: tmp_path / name for name in vocabularies}
    for name, folder in vocabularies.items():
        factory.spoiled(folder, folders[name], lambda copy: None)
    base = folders["base"]
    known = {"256": {"content": "<|endoftext|>", "special": True}}
    config = json.loads((base / "tokenizer_config.json").read_text())
    config |= {"added_tokens_decoder": known, "chat_template": "{{ old }}"}
    factory.write_json(base / "tokenizer_config.json", config)
    factory.write_json(base / "vocab.json", {"a": 0})
    text = UNION + "chat_template: '{{ messages[0].content }}'"
    out = merged(text, folders, tmp_path / "out")
    assert not (out / "vocab.json").exists()
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert "chat_template" not in config
    assert config["added_tokens_decoder"]["260"]["content"] == "茯苓"
    tokenizer = AutoTokenizer.from_pretrained(out)
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    assert [token for token, _ in tokens[256:]] == [
        *factory.SPECIAL_TOKENS, "<|tool|>", "茯苓", "<|pad|>", "当归",
    ]  # fmt: skip
    assert tokenizer.apply_chat_template([{"role": "user", "content": "茯苓"}], tokenize=False) == (
        "茯苓"
    )
    card = (out / "README.md").read_text()
    assert "tokenizer:\n  source: union" in card
    assert "chat_template: '{{ messages[0].content }}'" in card


def test_special_ids_move_with_the_vocabulary(vocabularies, tmp_path):
    out = merged(ARITHMETIC + "tokenizer_source: two", vocabularies, tmp_path / "out")
    for name in ("config.json", "generation_config.json"):
        assert json.loads((out / name).read_text())["eos_token_id"] == 257
    nested = {"text_config": {"pad_token_id": [0, 9]}, "bos_token_id": None}
    moved = {"text_config": {"pad_token_id": [1, 9]}, "bos_token_id": None}
    assert renumbered(nested, {"a": 0}, {"a": 1}) == moved
    sized = with_vocabulary({"text_config": {"vocab_size": 1}, "vocab_size": 1}, 5)
    assert sized == {"text_config": {"vocab_size": 5}, "vocab_size": 5}


def test_tokenizer_files():
    named = ["tokenizer.json", "merges.txt", "tokenizer.model", "tokenization_x.py", "a/vocab.json"]
    assert [name for name in named if is_tokenizer_file(name)] == named[:3]


def test_tokens_without_a_row_leave_the_base(vocabularies, tmp_path):
    """A BPE with a merge into a token beyond the rows: both go."""

    def lengthen(folder):
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["added_tokens"] = []
        content["model"]["vocab"] |= {f"unused{n}": 256 + n for n in range(8)} | {"ab": 264}
        content["model"]["merges"] = [["a", "b"]]
        factory.write_json(path, content)
        factory.write_json(
            folder / "tokenizer_config.json", {"tokenizer_class": "TokenizersBackend"}
        )

    base = factory.spoiled(vocabularies["base"], tmp_path / "base", lengthen)
    folders = {**vocabularies, "base": base}
    out = merged(ARITHMETIC + "tokenizer_source: base", folders, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == 264
    assert tokenizer.tokenize("ab") == ["a", "b"]


# ------------------------------------------------------------------------------------ refusals


def test_without_a_policy_it_points_to_one(vocabularies):
    with pytest.raises(CompatibilityError, match=r"embedding rows .* `tokenizer: {source: union}`"):
        plan(ARITHMETIC, vocabularies)


def strip_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


def sentencepiece_only(folder):
    strip_tokenizer(folder)
    (folder / "tokenizer.model").write_bytes(b"\n\x0e")


def misnumbered(folder):
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"][-1]["id"] = 300
    factory.write_json(folder / "tokenizer.json", content)


def with_merge(merge):
    def spoil(folder):
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        assert content["model"]["type"] == "BPE"
        content["model"]["merges"] = [["a", "b"], merge]
        factory.write_json(folder / "tokenizer.json", content)

    return spoil


@pytest.mark.parametrize(
    ("which", "spoil", "error", "match"),
    [
        ("two", sentencepiece_only, CheckpointError, "has tokenizer.model but no tokenizer.json"),
        ("two", misnumbered, CheckpointError, "'茯苓' has id 300, but loads as 260"),
        ("base", strip_tokenizer, CompatibilityError, "base has no tokenizer.json"),
        ("base", with_merge([{}, "b"]), CheckpointError, "is no pair of tokens"),
        ("one", with_merge("a b c"), CheckpointError, "'a b c' is no pair of tokens"),
        ("one", with_merge(7), CheckpointError, "'7' is no pair of tokens"),
    ],
)
def test_tokenizers_that_cannot_be_read(vocabularies, tmp_path, which, spoil, error, match):
    spoiled = factory.spoiled(vocabularies[which], tmp_path / which, spoil)
    with pytest.raises(error, match=match):
        plan(UNION, {**vocabularies, which: spoiled})


def test_an_expert_without_a_tokenizer_has_the_bases(vocabularies, tmp_path):
    bare = factory.spoiled(vocabularies["one"], tmp_path / "one", strip_tokenizer)
    found = plan(UNION, {**vocabularies, "one": bare})
    assert any(
        "one has no tokenizer; its vocabulary is taken" in str(each) for each in found.cautions
    )
    assert "<|tool|>" not in found.tokenizer.vocabulary.tokens


@pytest.mark.parametrize(
    ("tokens", "match"),
    [
        ("{当归: {source: one}}", "is one's row for '当归', a token that it lacks"),
        ("{new: {source: two}}", "is two's row for 'new', a token that it lacks"),
        ("{new: {source: three}}", "is a row of three, which 'lm_head.weight' is not merged"),
        (
            "{new: {source: {kind: model_token, model: two, token_id: 400}}}",
            "is row 400 of two, whose 'lm_head.weight' has 261 rows",
        ),
    ],
)
def test_rows_that_are_not_there(vocabularies, tokens, match):
    with pytest.raises(CompatibilityError, match=match):
        plan(ARITHMETIC + f"tokenizer: {{tokens: {tokens}}}", vocabularies)


def test_a_vocabulary_tensor_of_unknown_name_is_refused(tmp_path):
    family = factory.write_family(tmp_path, factory.LLAMA)
    folders = {"base": family.base, "one": family.experts[0], "two": family.experts[1]}
    for folder in folders.values():
        more = {"value_head.weight": torch.ones(factory.LLAMA.vocabulary, 2)}
        factory.rewrite_weights(folder, factory.read_tensors(folder) | more)
    assert plan(ARITHMETIC, folders).steps
    with pytest.raises(CompatibilityError, match=r"base has 'value_head\.weight', as long as its"):
        plan(UNION, folders)


def test_a_module_left_out_cannot_hold_the_vocabulary(vocabularies):
    text = (
        "merge_method: task_arithmetic\nbase_model: base\nparameters: {weight: 1}\n"
        "modules: {model.layers: {models: [{model: one}, {model: two}]}}\n"
        "tokenizer: {source: union}"
    )
    with pytest.raises(CompatibilityError, match=r"modules copy 'lm_head\.weight', whose rows"):
        plan(text, vocabularies)


def test_a_union_of_tokens_that_one_has_as_text_and_another_adds(vocabularies, tmp_path):
    """`a` keeps the base's id and is added as in `one`; unused tokens of `two` stay out."""

    def add_a(folder):
        factory.write_tokenizer(folder, special=["<|endoftext|>", "a"])

    def lengthen(folder):
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        content["model"]["vocab"] |= {f"unused{n}": 256 + n for n in range(8)}
        content["added_tokens"] = []
        factory.write_json(folder / "tokenizer.json", content)
        factory.write_json(folder / "tokenizer_config.json", {})

    folders = {
        "base": vocabularies["base"],
        "one": factory.spoiled(vocabularies["one"], tmp_path / "one", add_a),
        "two": factory.spoiled(vocabularies["two"], tmp_path / "two", lengthen),
    }
    out = merged(UNION, folders, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert len(factory.read_tensors(out)[EMBEDDING]) == len(tokenizer) == 264
    known = AutoTokenizer.from_pretrained(folders["base"]).get_vocab()
    assert tokenizer.get_vocab() == known | {f"unused{n}": 259 + n for n in range(5)}
    assert tokenizer.added_tokens_decoder[known["a"]].special


def test_task_vectors_leave_out_rows_of_other_tokens(vocabularies):
    models = opened(vocabularies)
    found = task_vector_statistics(models["base"], models["two"])
    names = [each.name for each in found.tensors]
    assert EMBEDDING not in names
    assert "lm_head.weight" not in names
    assert "model.norm.weight" in names


def test_the_plan_tells_of_the_vocabulary(vocabularies):
    found = plan(UNION, vocabularies)
    assert found.tokenizer.vocabulary.summary == "vocabulary: union, 263 tokens, 263 rows"
    assert plan_json(found)["vocabulary"] == {
        "tokens": 263,
        "rows": 263,
        "tokenizer": {"source": "union"},
    }
    assert "`task_arithmetic`" in model_card(found, found.outputs[0])
