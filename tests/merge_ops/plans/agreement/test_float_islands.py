"""Tensors that models keep in float32 on purpose, and what a recipe's dtype does to them."""

import pytest
import torch
from safetensors.torch import save_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

RECIPE = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: base}, {model: e1}]\n"
A_LOG, BIAS = "model.layers.0.linear_attn.A_log", "model.layers.0.mlp.gate.e_score_correction_bias"


def family(tmp_path, islands=(A_LOG, BIAS), base=torch.bfloat16, expert=torch.float32):
    """Two models of `base` with tensors of `expert` among them."""
    opened = {}
    for name in ("base", "e1"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        tensors = {f"model.layers.{n}.w": torch.ones(8, 8, dtype=base) for n in range(2)}
        of_base = torch.float32 if name == "base" else expert
        tensors |= {island: torch.ones(2, dtype=of_base) for island in islands}
        save_file(tensors, folder / "model.safetensors")
        factory.write_json(folder / "config.json", {"model_type": "toy"})
        opened[name] = open_checkpoint(name, FolderSource(folder))
    return opened


def warned(opened, further=""):
    plan = plan_merge(parse_recipe(RECIPE + further, "r", "r.yaml"), opened)
    return [str(each) for each in plan.cautions]


@pytest.mark.parametrize("key", ["dtype: bfloat16", "dtype: float16", "out_dtype: bfloat16"])
def test_islands_of_float32_are_named_once(tmp_path, key):
    [warning] = warned(family(tmp_path), key)
    assert warning.startswith(
        f"{key.replace(':', '')} rounds '{A_LOG}', '{BIAS}', which every model"
    )
    assert f"Leave {key.split(':')[0]} out" in warning


def test_of_many_five_are_named(tmp_path):
    names = [f"model.layers.{n}.norm" for n in range(7)]
    [warning] = warned(family(tmp_path, names), "dtype: bfloat16")
    assert "layers.4.norm' and 2 more tensors, which" in warning


@pytest.mark.parametrize(
    ("options", "further"),
    [
        ({}, ""),  # they stay float32
        ({}, "dtype: float32"),
        ({"base": torch.float32}, "dtype: bfloat16"),  # all of it is float32, and rounding is meant
        ({"expert": torch.bfloat16}, "dtype: bfloat16"),  # one of the models has them in 16 bits
        ({"islands": ()}, "dtype: bfloat16"),
    ],
)
def test_where_nothing_is_lost_there_is_no_word(tmp_path, options, further):
    assert not warned(family(tmp_path, **options), further)
