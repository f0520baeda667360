"""Vocabularies transplanted here are those of mergekit-tokensurgeon, row by row in float32."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.merges.merging import ROOT, merge_in_process
from tests.models import checkpoint_factory as factory
from tests.models import grown_tokenizers as grown
from tests.oracle.peers.oracle_environment import run_in_oracle

SCRIPT = ROOT / "tests/oracle/peers/run_tokensurgeon.py"
CORPUS = (*grown.ENGLISH, "an other text, of other words", *["茯苓 当归 融合 模型"] * 3)
SUBWORD, INTERPOLATED = ["-a", "subword", "-s"], ["-a", "common_interpolation"]
NEAREST = "approximation: common_interpolation"
CASES = {  # name: the model is tied, the step's keys, mergekit's options
    "omp": (False, "k: 8", ["-a", "omp", "-k", "8"]),
    "omp of a tied model": (True, "k: 3", ["-a", "omp", "-k", "3"]),
    "subwords": (False, "approximation: subword_mean", ["-a", "subword"]),
    "zero": (True, "approximation: zero", ["-a", "zero"]),
    "ends": (False, "approximation: subword_first_last", [*SUBWORD, "first_last"]),
    "nearest": (False, f"{NEAREST}, k: 6", [*INTERPOLATED, "-k", "6"]),
    "nearest by angle": (
        True,
        f"{NEAREST}, k: 5, distance: cosine",
        [*INTERPOLATED, "-k", "5", "-c"],
    ),
    "nearest, fitted": (
        False,
        f"{NEAREST}, k: 6, weight_scheme: least_squares",
        [*INTERPOLATED, "-k", "6", "-w", "least_squares"],
    ),
    "nearest, fitted to one": (
        False,
        f"{NEAREST}, k: 6, weight_scheme: barycentric, distance: cosine",
        [*INTERPOLATED, "-k", "6", "-c", "-w", "barycentric"],
    ),
}
COPIED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")


def write(folder, tokenizer, seed, tied, **settings):
    shape = replace(factory.LLAMA, vocabulary=400, layers=1, tied=tied, **settings)
    factory.write_checkpoint(folder, factory.base_tensors(shape, seed), shape)
    grown.write(tokenizer, folder)
    end = tokenizer.token_to_id(grown.END)
    factory.edit_config(folder, bos_token_id=end, eos_token_id=end)
    return folder


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
SWAPPED = "embeddings and heads swapped"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str | None]]:
    root = tmp_path_factory.mktemp("surgeon")
    donor = write(root / "donor", grown.byte_level(380, CORPUS), 7, False, hidden=32)
    cases = []
    for name, (tied, _, options) in CASES.items():
        model = root / f"model-{tied}"
        if not model.exists():
            write(model, grown.byte_level(), 1, tied)
        out = root / "mergekit" / name
        case = {"name": name, "model": model, "donor": donor, "out": out, "options": options}
        cases.append(case)
    # mergekit's weights of an embedding are those that it means for a head, and the other way round
    tensors = factory.read_tensors(root / "model-False")
    swapped = write(root / "swapped", grown.byte_level(), 1, False)
    factory.rewrite_weights(
        swapped, {**tensors, EMBEDDING: tensors[HEAD], HEAD: tensors[EMBEDDING]}
    )
    out = root / "mergekit" / SWAPPED
    options = [*SUBWORD, "weighted_mean"]
    cases.append({"name": SWAPPED, "model": swapped, "donor": donor, "out": out,
                  "options": options})  # fmt: skip
    return root, run_in_oracle(SCRIPT, root, cases)


def merged(root: Path, name: str, keys: str, tied: bool) -> Path:
    config = root / f"{name}.yaml"
    model = root / f"model-{tied}"
    config.write_text(
        f"vocabulary: {{transplant: {root / 'donor'}, {keys}}}\nmodels: [{{model: {model}}}]\n"
    )
    return merge_in_process(config, root / "ours" / name)


def compared_rows(out: Path, keys: str) -> list[int]:
    """All but Chinese subwords: mergekit cuts the letters that spell their bytes, not the bytes."""
    tokens = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
    rows = [
        n for token, n in tokens.items() if "subword" not in keys or token.lstrip("Ġ").isascii()
    ]
    assert len(rows) > 150
    return rows


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_theirs(root, name):
    root, outcomes = root
    assert outcomes[name] is None
    tied, keys, _ = CASES[name]
    out = merged(root, name, keys, tied)
    ours, theirs = factory.read_tensors(out), factory.read_tensors(root / "mergekit" / name)
    assert ours.keys() == theirs.keys()
    rows = compared_rows(out, keys)
    for tensor, wanted in theirs.items():
        found = ours[tensor]
        if tensor.endswith(("embed_tokens.weight", "lm_head.weight")):
            found, wanted = found[rows], wanted[rows]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    made, known = (
        json.loads((each / "config.json").read_text()) for each in (out, root / "mergekit" / name)
    )
    shared = (made.keys() & known.keys()) - set(COPIED)
    assert {key: made[key] for key in shared} == {key: known[key] for key in shared}


def test_weighted_parts_are_theirs_with_the_weights_that_they_mean(root):
    root, outcomes = root
    assert outcomes[SWAPPED] is None
    keys = "approximation: subword_weighted_mean"
    out = merged(root, "weighted", keys, False)
    ours, theirs = factory.read_tensors(out), factory.read_tensors(root / "mergekit" / SWAPPED)
    rows = compared_rows(out, keys)
    for name, other in ((EMBEDDING, HEAD), (HEAD, EMBEDDING)):
        torch.testing.assert_close(ours[name][rows], theirs[other][rows], rtol=1e-4, atol=1e-6)
