"""What is taken from upstream and what a merge copies are one set, told in two places."""

import pytest

from merge_ops.plans.side_files import SIDE_NAMES, SIDE_SUFFIXES, is_side_file
from resources.upstream.source import TEXT_NAMES, TEXT_SUFFIXES, wanted_files

NAMES = (
    "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer.model.v3",
    "spiece.model", "source.spm", "x.tiktoken", "tekken.json", "vocab.txt", "vocab.bpe",
    "bpe.codes", "merges.txt", "chat_template.jinja", "additional_chat_templates/tool.jinja",
    "video_preprocessor_config.json", "modules.json", "config_sentence_transformers.json",
    "1_Pooling/config.json", "2_Dense/config.json", "LICENSE", "licence.md", "NOTICE",
    "USE_POLICY.md", "COPYING",
    # in neither
    "a.png", "optimizer.pt", "weights.gguf", ".gitattributes", "original/params.json",
    "1_Pooling/a/config.json", "2024_runs/config.json", "additional_chat_templates/x.md",
    "onnx/config.json", "1_Pooling/x.png",
)  # fmt: skip


def taken(name):
    return name in wanted_files([name, "model.safetensors"], "here")


@pytest.mark.parametrize("name", NAMES)
def test_both_take_the_same_files(name):
    assert is_side_file(name) is taken(name)


def test_the_lists_differ_in_code_and_cards_alone():
    """Code of strangers does not enter the store; a card describes its model and no merge of it."""
    assert TEXT_SUFFIXES | {".py"} == SIDE_SUFFIXES
    assert TEXT_NAMES.pattern == SIDE_NAMES.pattern.replace("(LICEN", "(README|LICEN")
    assert not taken("modeling_x.py")
    assert is_side_file("modeling_x.py")


@pytest.mark.parametrize("name", ["trainer_state.json", "all_results.json", "adapter_config.json"])
def test_what_describes_one_model_stays_with_it(name):
    assert taken(name)
    assert not is_side_file(name)
