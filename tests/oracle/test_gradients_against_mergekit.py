"""A gradient over a model with a layer for multi-token prediction behind the counted ones.

mergekit 0.1.5 takes the layers that config.json counts and leaves out what lies behind them; in
those that it writes ours is equal, and ours keeps the layer behind with t = 1.
"""

from dataclasses import replace
from pathlib import Path

import torch

from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import (
    LLAMA,
    base_tensors,
    edit_config,
    expert_tensors,
    read_tensors,
    write_checkpoint,
)
from tests.oracle.peers.oracle_environment import OracleCase, merge_with_mergekit, write_config

FOUR = replace(LLAMA, layers=4)
CASES = {
    "models": """
        merge_method: linear
        models:
          - {model: $base, parameters: {weight: [1, 0]}}
          - {model: $one, parameters: {weight: [0, 1]}}
        dtype: float32
        """,
    "slices": """
        merge_method: slerp
        base_model: $base
        slices:
          - sources:
              - {model: $base, layer_range: [0, 4]}
              - {model: $one, layer_range: [0, 4]}
        parameters: {t: [{filter: mlp, value: [1, 0.2, 0.6]}, {value: [0, 1]}]}
        dtype: float32
        """,
}


def test_layers_behind_the_counted_ones(tmp_path: Path) -> None:
    models, base = {}, base_tensors(replace(FOUR, layers=5))
    for name, tensors in (("base", base), ("one", expert_tensors(base, 1))):
        models[name] = write_checkpoint(tmp_path / name, tensors, FOUR)
        edit_config(models[name], num_nextn_predict_layers=1)
    cases = [
        OracleCase(name, write_config(tmp_path / f"{name}.yaml", text, models), tmp_path / name)
        for name, text in CASES.items()
    ]
    assert merge_with_mergekit(tmp_path, cases) == dict.fromkeys(CASES)
    one = read_tensors(models["one"])
    for case in cases:
        theirs = read_tensors(case.out)
        ours = read_tensors(merge_in_process(case.config, tmp_path / f"ours-{case.name}"))
        behind = {name for name in ours if ".layers.4." in name}
        assert ours.keys() - behind == theirs.keys()
        for name, expected in theirs.items():
            torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-7)
        assert behind == {name for name in base if ".layers.4." in name}
        for name in behind:
            if case.name == "models" or "mlp" not in name:
                torch.testing.assert_close(ours[name], one[name], rtol=1e-6, atol=1e-7)
