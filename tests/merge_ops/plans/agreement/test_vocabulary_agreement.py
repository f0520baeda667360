"""Models whose embeddings hold other tokens in equal rows are told apart, whatever their files."""

import re

import pytest
import torch
from safetensors.torch import save_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, CompatibilityError
from merge_ops.plans.agreement.compatibility import check_compatible
from merge_ops.plans.agreement.vocabulary_agreement import (
    differing_vocabulary,
    equal_vocabularies,
    tokenizer_faults,
    vocabulary_cautions,
)
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter
from tests.models import vocabulary_folders as folders

SWAPPED = ("<unk>", "<s>", "</s>", "b", "a", "c", "d", "茯苓")
RECIPE = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: base}, {model: e1}]\n"


def pair(tmp_path, ours, theirs, rows=8):
    base = folders.model(tmp_path / "base", ours, rows)
    return base, folders.model(tmp_path / "e1", theirs, rows)


def named(models):
    return {each.name: each for each in models}


def told(base, expert):
    """The faults and the cautions, as texts."""
    faults = [str(each) for each in tokenizer_faults(base, expert)]
    return faults, [str(each) for each in vocabulary_cautions(base, expert)]


@pytest.mark.parametrize("file", sorted(folders.FORMS))
def test_exchanged_tokens_are_a_fault_in_every_form(tmp_path, file):
    form = folders.FORMS[file]
    models = named(pair(tmp_path, {file: form()}, {file: form(SWAPPED)}))
    with pytest.raises(CompatibilityError, match="e1 has another vocabulary than base: 2 tokens"):
        plan_merge(parse_recipe(RECIPE, "r", "r.yaml"), models)
    assert differing_vocabulary(*models.values())


@pytest.mark.parametrize("file", sorted(folders.FORMS))
def test_equal_files_give_no_word(tmp_path, file):
    files = {file: folders.FORMS[file]()}
    models = named(pair(tmp_path, files, files))
    assert plan_merge(parse_recipe(RECIPE, "r", "r.yaml"), models).cautions == ()


def test_only_tokenizer_json_can_be_merged_by_a_policy(tmp_path):
    form = folders.tokenizer_json
    faults, _ = told(*pair(tmp_path / "a", {"tokenizer.json": form()},
                           {"tokenizer.json": form(SWAPPED)}))  # fmt: skip
    assert "say in the recipe which vocabulary" in faults[0]
    assert "AutoTokenizer" not in faults[0]
    form = folders.sentencepiece
    faults, _ = told(*pair(tmp_path / "b", {"spiece.model": form()},
                           {"spiece.model": form(SWAPPED)}))  # fmt: skip
    assert "by spiece.model" in faults[0]
    assert "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)" in faults[0]


def test_other_bytes_of_the_same_pieces_are_equal(tmp_path):
    """Scores, trainer settings and spelling of the JSON say nothing of rows."""
    pieces = folders.sentencepiece()
    base, expert = pair(tmp_path, {"tokenizer.model": pieces}, {"spiece.model": pieces + b"\x78\1"})
    assert told(base, expert) == ([], [])


# ---------------------------------------------------------------------------------- two forms


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("tokenizer.json", "tokenizer.model"),
        ("tokenizer.model", "vocab.json"),
        ("tekken.json", "x.tiktoken"),
        ("vocab.json", "vocab.txt"),
    ],
)
def test_two_forms_of_the_same_rows_are_equal(tmp_path, ours, theirs):
    forms = {**folders.FORMS, "x.tiktoken": folders.tiktoken}
    base, expert = pair(tmp_path, {ours: forms[ours]()}, {theirs: forms[theirs]()})
    assert told(base, expert) == ([], [])


def test_two_forms_with_exchanged_tokens(tmp_path):
    base, expert = pair(
        tmp_path,
        {"tokenizer.json": folders.tokenizer_json()},
        {"tokenizer.model": folders.sentencepiece(SWAPPED)},
    )
    [fault], cautions = told(base, expert)
    assert "2 tokens moved or missing, 0 new (first: 'a' by tokenizer.model, against" in fault
    assert not cautions


def test_two_forms_of_unrelated_order_are_a_fault(tmp_path):
    words = tuple(f"w{n}" for n in range(40))
    other = tuple(f"w{n * 7 % 40}" for n in range(40))
    base, expert = pair(
        tmp_path,
        {"tokenizer.json": folders.tokenizer_json(words)},
        {"tokenizer.model": folders.sentencepiece(other)},
        rows=40,
    )
    assert told(base, expert)[0]


@pytest.mark.parametrize("shift", [1, 3])
def test_a_class_that_shifts_its_pieces_cannot_be_known(tmp_path, shift):
    """As fairseq's models do: XLM-R, mBART, CamemBERT."""
    words = tuple(f"w{n}" for n in range(20))
    shifted = (*(f"<{n}>" for n in range(shift)), *words)
    rows = 20 + shift
    base = folders.model(tmp_path / "base", {"tokenizer.json": folders.tokenizer_json(shifted)},
                         rows)  # fmt: skip
    expert = folders.model(tmp_path / "e1", {"spiece.model": folders.sentencepiece(words)}, rows)
    faults, [caution] = told(base, expert)
    assert not faults
    assert "e1 may have another vocabulary than base, which its files do not tell" in caution
    assert "Make sure that both models have the same tokenizer" in caution


def test_a_form_that_both_have_decides_where_the_preferred_ones_cannot(tmp_path):
    words = tuple(f"w{n}" for n in range(20))
    pieces = {"spiece.model": folders.sentencepiece(words)}
    base = folders.model(
        tmp_path / "base", {**pieces, "tokenizer.json": folders.tokenizer_json(("<s>", *words))}, 21
    )
    assert told(base, folders.model(tmp_path / "e1", pieces, 21)) == ([], [])
    moved = {"spiece.model": folders.sentencepiece(("w1", "w0", *words[2:]))}
    assert told(base, folders.model(tmp_path / "e2", moved, 21))[0]


def test_tokens_that_only_one_form_names_are_a_caution(tmp_path):
    """Special tokens of Qwen 1 are made by its code, those of its successors stand in files."""
    base, expert = pair(
        tmp_path,
        {"tokenizer.json": folders.tokenizer_json((*folders.WORDS[:7], "<|end|>"))},
        {"x.tiktoken": folders.tiktoken(folders.WORDS[:7])},
    )
    faults, [caution] = told(base, expert)
    assert not faults
    assert "first: '<|end|>' by x.tiktoken, against tokenizer.json" in caution


# ------------------------------------------------------------------------------ further tokens


def spm(**further):
    names = {"added": "added_tokens.json", "config": "tokenizer_config.json"}
    files = {names[key]: value for key, value in further.items()}
    return {"tokenizer.model": folders.sentencepiece(), **files}


def decoder(row, token):
    return {"added_tokens_decoder": {str(row): {"content": token, "special": True}}}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (spm(added={"<a>": 8}), spm(added={"<b>": 8})),
        (spm(added={"<a>": 8}), spm(config=decoder(8, "<b>"))),
        (spm(config=decoder(8, "<a>")), spm(config=decoder(9, "<a>"))),
        (spm(), spm(added={"<a>": 8})),
        (spm(config={"pad_token": "<p>"}), spm(config={"pad_token": "<q>"})),
        (
            {"tokenizer.json": folders.tokenizer_json(), "tokenizer_config.json": decoder(8, "a1")},
            {"tokenizer.json": folders.tokenizer_json(), "tokenizer_config.json": decoder(8, "a2")},
        ),
        (
            {"vocab.json": folders.vocab_json(), "added_tokens.json": {"<a>": 8, "<b>": 9}},
            {"vocab.json": folders.vocab_json(), "added_tokens.json": {"<a>": 9, "<b>": 8}},
        ),
    ],
)
def test_added_tokens_count(tmp_path, ours, theirs):
    assert told(*pair(tmp_path, ours, theirs, rows=10))[0]
    beyond = pair(tmp_path / "beyond", ours, theirs, rows=8)
    assert told(*beyond) == ([], [])  # the embeddings have no such row


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (spm(added={"<a>": 8}), spm(config=decoder(8, "<a>"))),
        (spm(config={"pad_token": "<unk>"}), spm(config={"eos_token": {"content": "</s>"}})),
        (spm(config={"chat_template": "x"}), spm()),
    ],
)
def test_the_same_added_tokens_in_other_files_are_equal(tmp_path, ours, theirs):
    assert told(*pair(tmp_path, ours, theirs, rows=10)) == ([], [])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (spm(), spm(config={"pad_token": "<p>"})),  # no file gives it a row
        (spm(), spm(config=decoder(9, "<extra_id_0>"))),  # T5's class makes them
        (
            {"q.tiktoken": folders.tiktoken(), "tokenization_q.py": b""},
            {
                "q.tiktoken": folders.tiktoken(),
                "tokenization_q.py": b"",
                "added_tokens.json": {"<|im_end|>": 8},
            },
        ),
    ],
)
def test_tokens_that_the_other_may_have_too_are_a_caution(tmp_path, ours, theirs):
    faults, cautions = told(*pair(tmp_path, ours, theirs, rows=10))
    assert not faults
    assert len(cautions) == 1


# ----------------------------------------------------------------------------- what is no word


def test_a_model_without_a_tokenizer_is_taken_as_it_is(tmp_path):
    assert told(*pair(tmp_path, spm(), {})) == ([], [])


def test_experts_of_a_base_without_a_tokenizer_are_compared_with_one_another(tmp_path):
    base, first = pair(tmp_path, {}, spm())
    other = {"tokenizer.model": folders.sentencepiece(SWAPPED)}
    second = folders.model(tmp_path / "e2", other)
    with pytest.raises(CompatibilityError, match="e2 has another vocabulary than e1: 2 tokens"):
        check_compatible(base, [first, second])
    assert check_compatible(base, [first, first]) == []


@pytest.mark.parametrize(
    ("files", "match"),
    [
        ({"tokenizer.model": b"\n\x0e"}, r"tokenizer\.model: is no vocabulary \(cut off"),
        ({"tokenizer.json": b"{"}, r"tokenizer\.json: not valid JSON"),
        ({"tokenizer.json": {"model": 7}}, r"tokenizer\.json: is no vocabulary"),
        ({**spm(), "added_tokens.json": b"["}, r"added_tokens\.json: not valid JSON"),
        ({**spm(), "added_tokens.json": {"a": None}}, "added tokens of its tokenizer are"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_caution(tmp_path, files, match):
    base, expert = pair(tmp_path, {"tokenizer.json": folders.tokenizer_json()}, files)
    models = {"base": base, "e1": expert}
    [caution] = plan_merge(parse_recipe(RECIPE, "r", "r.yaml"), models).cautions
    assert caution.where == "e1"
    assert caution.problem.startswith("has a vocabulary that cannot be read")
    assert re.search(match, caution.problem)
    assert "Restore the file from its source" in caution.advice


def test_a_policy_refuses_what_is_no_tokenizer_json(tmp_path):
    for file in ("vocab.txt", "tekken.json"):
        form = folders.FORMS[file]
        base, expert = pair(
            tmp_path / file, {"tokenizer.json": folders.tokenizer_json()}, {file: form()}
        )
        text = RECIPE + "tokenizer: {source: union}\n"
        with pytest.raises(
            CheckpointError, match=f"has {file} but no tokenizer.json, which a merged"
        ):
            plan_merge(parse_recipe(text, "r", "r.yaml"), {"base": base, "e1": expert})


# ------------------------------------------------------------------------------------ adapters


def adapter_over(base, folder, files, saved):
    """An adapter with a tokenizer beside it, over an embedding of its own or the base's."""
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"]}
    tensors = {
        "base_model.model.q.lora_A.weight": torch.ones(1, 2),
        "base_model.model.q.lora_B.weight": torch.ones(2, 1),
    }
    if saved:
        config["modules_to_save"] = ["embed_tokens"]
        tensors["base_model.model.model.embed_tokens.weight"] = torch.ones(8, 2)
    folders.put(folder, {"adapter_config.json": config, **files})
    save_file(tensors, folder / "adapter_model.safetensors")
    return open_adapter("base+" + folder.name, base, FolderSource(folder))


@pytest.mark.parametrize("saved", [True, False])
def test_the_tokenizer_of_an_adapter_counts_where_it_has_the_embedding(tmp_path, saved):
    folder = tmp_path / "base"
    folders.model(folder, spm())
    save_file(
        {folders.EMBEDDING: torch.ones(8, 2), "q.weight": torch.ones(2, 2)},
        folder / "model.safetensors",
    )
    base = open_checkpoint("base", FolderSource(folder))
    theirs = {"tokenizer.model": folders.sentencepiece(SWAPPED)}
    expert = adapter_over(base, tmp_path / "adapter", theirs, saved)
    assert equal_vocabularies(base, expert) is not saved
    same = adapter_over(base, tmp_path / "same", spm(), saved)
    assert equal_vocabularies(base, same)
