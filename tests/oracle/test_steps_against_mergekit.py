"""A file of two steps gives what `mergekit-multi` gives."""

from dataclasses import replace
from pathlib import Path

import torch

from tests.merges.merging import ronghe
from tests.models.checkpoint_factory import LLAMA, read_tensors, write_family
from tests.oracle.peers.oracle_environment import run_oracle_program, write_config

STEPS = """
    name: halves
    merge_method: linear
    models:
      - {model: $one, parameters: {weight: 0.3}}
      - {model: $two, parameters: {weight: 0.9}}
    dtype: float32
    ---
    merge_method: ties
    models:
      - {model: halves, parameters: {weight: [0.4, 1.2]}}
      - {model: $three, parameters: {weight: 0.7}}
    base_model: $base
    dtype: float32
    """


def test_two_steps_equal_mergekit_multi(tmp_path: Path) -> None:
    base, (one, two, three) = write_family(tmp_path / "f", replace(LLAMA, layers=4), experts=3)
    models = {"base": base, "one": one, "two": two, "three": three}
    config = write_config(tmp_path / "steps.yaml", STEPS, models)
    theirs, between = tmp_path / "theirs", tmp_path / "between"
    options = ("--out-path", theirs, "-I", between)
    done = run_oracle_program("mergekit-multi", config, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    ours = ronghe("merge", config, tmp_path / "ours")
    assert ours.returncode == 0, ours.stderr
    expected = read_tensors(theirs)
    merged = read_tensors(tmp_path / "ours")
    assert merged.keys() == expected.keys()
    for name, value in expected.items():
        top = float(value.abs().max())
        torch.testing.assert_close(merged[name], value, rtol=1e-6, atol=2e-7 * top)
