"""Vocabularies transplanted here are those of mergekit-tokensurgeon, row by row in float32."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import checkpoint_factory as factory
from tests import grown_tokenizers as grown
from tests.merging import ROOT, merge_in_process
from tests.oracle.oracle_environment import run_in_oracle

SCRIPT = ROOT / "tests/oracle/run_tokensurgeon.py"
CORPUS = (*grown.ENGLISH, "an other text, of other words", *["茯苓 当归 融合 模型"] * 3)
CASES = {  # name: the model is tied, the step's keys, mergekit's options
    "omp": (False, "k: 8", ["-a", "omp", "-k", "8"]),
    "omp of a tied model": (True, "k: 3", ["-a", "omp", "-k", "3"]),
    "subwords": (False, "approximation: subword_mean", ["-a", "subword"]),
    "zero": (True, "approximation: zero", ["-a", "zero"]),
}
COPIED = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")


def write(folder, tokenizer, seed, tied, **settings):
    shape = replace(factory.LLAMA, vocabulary=400, layers=1, tied=tied, **settings)
    factory.write_checkpoint(folder, factory.base_tensors(shape, seed), shape)
    grown.write(tokenizer, folder)
    end = tokenizer.token_to_id(grown.END)
    factory.edit_config(folder, bos_token_id=end, eos_token_id=end)
    return folder


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
    return root, run_in_oracle(SCRIPT, root, cases)


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_theirs(root, name):
    root, outcomes = root
    assert outcomes[name] is None
    tied, keys, _ = CASES[name]
    config = root / f"{name}.yaml"
    model = root / f"model-{tied}"
    config.write_text(
        f"vocabulary: {{transplant: {root / 'donor'}, {keys}}}\nmodels: [{{model: {model}}}]\n"
    )
    out = merge_in_process(config, root / "ours" / name)
    ours, theirs = factory.read_tensors(out), factory.read_tensors(root / "mergekit" / name)
    assert ours.keys() == theirs.keys()
    tokens = json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]
    # mergekit cuts the letters that spell Chinese bytes, not the bytes
    rows = [
        n for token, n in tokens.items() if "subword" not in keys or token.lstrip("Ġ").isascii()
    ]
    assert len(rows) > 150
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
