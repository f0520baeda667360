"""Placeholders of ZeRO-3 are refused with the way to the weights; empty buffers are not."""

from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.names.placeholders import placeholder_fault
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import read_adapter
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter

HINT = r"placeholders of a ZeRO-3 training run; the weights were never saved: .*`zero_to_fp32.py`,"
HINT += " or save again with `stage3_gather_16bit_weights_on_model_save`"
LINEAR = "merge_method: linear\nmodels: [{model: base}, {model: expert-1}]\nparameters: {weight: 1}"


def plan_of(*folders: Path):
    models = {folder.name: open_checkpoint(folder.name, FolderSource(folder)) for folder in folders}
    return plan_merge(parse_recipe(LINEAR, "r", "r.yaml"), models)


def hollow(folder: Path, part: str) -> None:
    tensors = factory.read_tensors(folder)
    empty = {name: torch.empty(0) for name in tensors if part in name}
    factory.rewrite_weights(folder, tensors | empty)


@pytest.mark.parametrize("who", [("base", "expert-1"), ("expert-1",), ("base",)])
@pytest.mark.parametrize("part", ["_proj", "", "embed_tokens"])
def test_placeholders_are_refused(tmp_path, who, part):
    factory.write_family(tmp_path, factory.LLAMA, experts=1)
    for name in who:
        hollow(tmp_path / name, part)
    with pytest.raises(CompatibilityError, match=HINT) as refusal:
        plan_of(tmp_path / "base", tmp_path / "expert-1")
    assert sorted(fault.where for fault in refusal.value.faults) == sorted(who)


def test_a_parameter_by_itself_is_a_placeholder_where_another_model_has_it(tmp_path):
    factory.write_family(tmp_path, factory.LLAMA, experts=1)
    for name, value in (("base", torch.ones(4)), ("expert-1", torch.empty(0))):
        factory.rewrite_weights(
            tmp_path / name, factory.read_tensors(tmp_path / name) | {"model.gamma": value}
        )
    with pytest.raises(CompatibilityError, match=f"'model.gamma' with shape .0.: {HINT}"):
        plan_of(tmp_path / "base", tmp_path / "expert-1")


def test_an_adapter_of_placeholders_says_the_same(tmp_path):
    factory.write_family(tmp_path, factory.LLAMA, experts=0)
    base = factory.read_tensors(tmp_path / "base")
    tensors = lora_tensors(base, modules_of(base, "q_proj"), 4)
    write_adapter(tmp_path / "lora", {name: torch.empty(0) for name in tensors}, r=4)
    with pytest.raises(CompatibilityError, match=HINT) as refusal:
        read_adapter("lora", FolderSource(tmp_path / "lora"))
    assert len(refusal.value.faults) == 1


def test_an_empty_buffer_is_none(tmp_path):
    factory.write_family(tmp_path, factory.LLAMA, experts=1)
    for name in ("base", "expert-1"):
        tensors = factory.read_tensors(tmp_path / name) | {
            "model.cache": torch.empty(0),
            "model.seen": torch.empty(0, dtype=torch.long),
        }
        factory.rewrite_weights(tmp_path / name, tensors)
    plan = plan_of(tmp_path / "base", tmp_path / "expert-1")
    assert placeholder_fault(plan.base) is None
    assert {"model.cache", "model.seen"} <= {step.output.name for step in plan.steps}
