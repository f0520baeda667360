"""Merged vocabularies equal mergekit 0.1.5's, token by token."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from merge_ops.errors import CompatibilityError
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import (
    LLAMA,
    QWEN2,
    SPECIAL_TOKENS,
    Tensors,
    read_tensors,
    spoiled,
    write_tokenizer,
    write_vocabulary_family,
)
from tests.oracle.peers.oracle_environment import OracleCase, merge_with_mergekit, write_config
from tests.oracle.test_against_mergekit import assert_equal, nowhere
from tests.oracle.written.cases_vocabulary import MERGED, REFUSED

SHAPES = {"llama": LLAMA, "qwen2": QWEN2, "tied-llama": replace(LLAMA, tied=True)}
TEXT = "茯苓与当归 <|tool|> poria<|im_end|>"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds, for every case, FAMILY-CASE.yaml and mergekit/FAMILY-CASE."""
    work = tmp_path_factory.mktemp("vocabulary")
    cases = []
    for family, shape in SHAPES.items():
        models = write_vocabulary_family(work / family, shape)
        models["beyond"] = spoiled(
            models["base"],
            work / family / "beyond",
            lambda folder: write_tokenizer(folder, added=["茯苓", "b2", "b3", "b4", "b5", "当归"]),
        )
        for name, text in (MERGED | REFUSED).items():
            config = write_config(work / f"{family}-{name}.yaml", text, models)
            cases.append(OracleCase(config.stem, config, work / "mergekit" / config.stem))
    outcomes = merge_with_mergekit(work, cases)
    (work / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
    return work


def by_token(folder: Path) -> tuple[dict[str, int], Tensors]:
    """The vocabulary, and all tensors with rows of the vocabulary sorted by token."""
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    order = torch.tensor([vocabulary[token] for token in sorted(vocabulary)])
    tensors = read_tensors(folder)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            padding = tensors[name][len(order) :]
            tensors[name] = torch.cat([tensors[name][order], padding])
    return vocabulary, tensors


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("name", MERGED)
def test_equals_mergekit_by_token(work: Path, family: str, name: str) -> None:
    run = f"{family}-{name}"
    outcome = json.loads((work / "outcomes.json").read_text(encoding="utf-8"))[run]
    assert outcome is None, outcome
    theirs = work / "mergekit" / run
    ours = merge_in_process(work / f"{run}.yaml", work / "ronghe" / run)
    known, tensors = by_token(ours)
    expected_known, expected = by_token(theirs)
    assert sorted(known) == sorted(expected_known)
    if "union" not in name and "tokens" not in name:
        assert known == expected_known
    assert_equal(tensors, expected, nowhere)
    sizes = [
        json.loads((each / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        for each in (ours, theirs)
    ]
    assert sizes[0] == sizes[1] == len(tensors["model.embed_tokens.weight"])
    left, right = (AutoTokenizer.from_pretrained(each) for each in (ours, theirs))
    assert left.tokenize(TEXT) == right.tokenize(TEXT)
    assert left.decode(left.encode(TEXT)) == right.decode(right.encode(TEXT))


@pytest.mark.parametrize("family", SHAPES)
@pytest.mark.parametrize("name", ["arithmetic-union", "linear-model", "linear-tokens"])
def test_loads_and_generates(work: Path, family: str, name: str) -> None:
    run = f"{family}-{name}"
    out = merge_in_process(work / f"{run}.yaml", work / "loaded" / run)
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForCausalLM.from_pretrained(out)
    rows = model.get_input_embeddings().weight.shape[0]
    assert max(tokenizer.get_vocab().values()) < rows == model.config.vocab_size
    prompt = tokenizer("茯苓", return_tensors="pt")
    generated = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    assert generated.shape[1] == prompt["input_ids"].shape[1] + 1
    assert tokenizer.decode(prompt["input_ids"][0]) == "茯苓"
    end = tokenizer.get_vocab()[SPECIAL_TOKENS[0]]
    assert model.generation_config.eos_token_id == model.config.eos_token_id == end


@pytest.mark.parametrize("family", SHAPES)
def test_tokens_beyond_the_embedding_are_refused(work: Path, family: str) -> None:
    run = f"{family}-beyond"
    outcome = json.loads((work / "outcomes.json").read_text(encoding="utf-8"))[run]
    assert outcome is not None
    assert outcome.startswith("KeyError")
    with pytest.raises(CompatibilityError, match=r"has token '当归' with id 264 .* has 264 rows"):
        merge_in_process(work / f"{run}.yaml", work / "ronghe" / run)
