"""tokenizer.json alone gives the tokens that transformers gives, or it is not taken alone."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from eval_ops.errors import PromptsError
from eval_ops.running.lone_tokenizer import LoneTokenizer, lone_tokenizer
from eval_ops.running.prompt_tokens import tokens_of
from tests.models import grown_tokenizers as grown
from tests.models.checkpoint_factory import write_json

TEXTS = (
    "the quick brown fox",
    "  two blanks before, \n\tand behind  ",
    grown.CHINESE,
    f"{grown.END}the{grown.END} end<tool> <unk><s>",
    "ﬁ ½ é é ▁ Ġ \u200b \ufeff 😀",
    "",
)
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": grown.END}
LLAMA = {"model_type": "llama"}


def added(tokenizer: Tokenizer) -> dict[str, dict[str, object]]:
    listed = json.loads(tokenizer.to_str())["added_tokens"]
    return {str(each.pop("id")): each for each in listed}


def write(folder: Path, tokenizer: Tokenizer, config: object, model: object = LLAMA) -> Path:
    grown.write(tokenizer, folder)
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "config.json", model)
    return folder


def of_transformers(folder: Path) -> tuple[str | None, list[list[int]]]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.bos_token, tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]


def same(folder: Path) -> LoneTokenizer | None:
    """The lone tokenizer, whose tokens are those of transformers where there is one."""
    found = lone_tokenizer(folder)
    if found is not None:
        assert (found.bos_token, found.tokens(TEXTS)) == of_transformers(folder)
    return found


SAVED = {
    "plain": {},
    "another class": {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers"},
    "a beginning": {"bos_token": grown.END, "add_bos_token": True, "add_eos_token": True},
    "an object": {"bos_token": {"__type": "AddedToken", "content": grown.END, "lstrip": False,
                                "normalized": False, "rstrip": False, "single_word": False}},
    "more special": {"extra_special_tokens": [grown.END], "model_max_length": 3},
    "a template": {"chat_template": "{{ messages }}", "padding_side": "left"},
}  # fmt: skip


@pytest.mark.parametrize("model", ["llama", "qwen3"])
@pytest.mark.parametrize("kind", grown.KINDS)
@pytest.mark.parametrize("saved", SAVED)
def test_the_file_alone_decides(saved: str, kind: str, model: str, tmp_path: Path):
    tokenizer = grown.KINDS[kind]()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{grown.END} $A", special_tokens=[(grown.END, tokenizer.token_to_id(grown.END))]
    )
    config = {**PLAIN, **SAVED[saved]}
    assert same(write(tmp_path, tokenizer, config, {"model_type": model})) is not None
    config["added_tokens_decoder"] = added(tokenizer)
    write_json(tmp_path / "special_tokens_map.json", {"unk_token": "fox"})  # is not read then
    assert same(write(tmp_path, tokenizer, config, {"model_type": model})) is not None


def test_saved_by_transformers_it_decides_alone(tmp_path: Path):
    made = AutoTokenizer.from_pretrained(write(tmp_path / "one", grown.byte_level(), PLAIN))
    made.save_pretrained(tmp_path / "two")
    write_json(tmp_path / "two/config.json", LLAMA)
    assert same(tmp_path / "two") is not None


OTHERS = {
    "a token that is none yet": {"bos_token": "<s0>"},
    "a token that is not added": {"pad_token": "a"},
    "more tokens": {"extra_special_tokens": ["fox"]},
    "tokens with names": {"extra_special_tokens": {"image_token": "fox"}},
    "a token of a name": {"image_token": "fox"},
    "special tokens are split": {"split_special_tokens": True},
    "a class of its own": {"tokenizer_class": "Qwen2Tokenizer"},
    "no class": {"tokenizer_class": None},
    "other added tokens": {"added_tokens_decoder": {}},
    "a plain object": {"bos_token": {"content": grown.END}},
    "a blank before": {"add_prefix_space": True},
}


@pytest.mark.parametrize("other", OTHERS)
def test_where_more_decides_transformers_is_asked(other: str, tmp_path: Path):
    assert same(write(tmp_path, grown.byte_level(), {**PLAIN, **OTHERS[other]})) is None


def test_other_files_and_models_are_left_to_transformers(tmp_path: Path):
    for model in ({"model_type": "qwen2"}, {"model_type": "mistral"}, {}, [],
                  {**LLAMA, "tokenizer_class": "LlamaTokenizer"}):  # fmt: skip
        assert same(write(tmp_path / "models", grown.byte_level(), PLAIN, model)) is None
    for number, name in enumerate(("special_tokens_map.json", "added_tokens.json")):
        folder = write(tmp_path / str(number), grown.byte_level(), PLAIN)
        write_json(folder / name, {})
        assert same(folder) is None
    padded = grown.byte_level()
    padded.enable_padding(pad_token=grown.END)
    assert same(write(tmp_path / "padded", padded, PLAIN)) is None
    assert same(tmp_path / "nothing") is None
    broken = write(tmp_path / "broken", grown.byte_level(), PLAIN)
    document = json.loads((broken / "tokenizer.json").read_text())
    write_json(broken / "tokenizer.json", {**document, "model": {"type": "None"}})
    assert lone_tokenizer(broken) is None


def test_prompts_begin_with_the_first_token_either_way(tmp_path: Path):
    config = {**PLAIN, "bos_token": grown.END}
    alone = write(tmp_path / "alone", grown.byte_level(), config)
    asked = write(tmp_path / "asked", grown.byte_level(), {**config, "add_prefix_space": False})
    assert lone_tokenizer(alone) is not None
    assert lone_tokenizer(asked) is None
    prompts = [((TEXTS[0], TEXTS[2]), (TEXTS[3],)), ((TEXTS[1],), ())]
    one, two = (tokens_of(each, prompts) for each in (alone, asked))
    assert one == two
    end = grown.byte_level().token_to_id(grown.END)
    assert all(tokens[0] == end for positive, _ in one for tokens in positive)
    assert [len(each) for each in one[1]] == [1, 0]


def test_a_prompt_without_tokens_is_named(tmp_path: Path):
    write(tmp_path, grown.byte_level(), PLAIN)
    with pytest.raises(PromptsError, match="prompt '' has no tokens"):
        tokens_of(tmp_path, [(("", "the"), ())])
