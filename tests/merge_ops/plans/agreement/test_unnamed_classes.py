"""What an output must hold where its config.json does not say what it is."""

import dataclasses
import json
import shutil

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.agreement.expected_tensors import ExpectedTensors, can_look
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

TEXT = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1}}, "
TEXT += "{model: a, parameters: {weight: 1}}]"


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("family"), factory.LLAMA, experts=1)


def plan_of(**folders):
    opened = {
        name: open_checkpoint(name, FolderSource(folder), f"digest of {name}")
        for name, folder in folders.items()
    }
    return plan_merge(parse_recipe(TEXT, "study", "study.yaml"), opened)


def with_config(folder, place, **changes):
    """A copy of a folder whose config has other keys; None takes a key away."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if value is not None}
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_a_class_that_nobody_names_is_looked_for(family, tmp_path):
    """A base without a class and without a tensor of its body fits no class of its model_type."""
    base = with_config(family.base, tmp_path / "base", architectures=None)
    expert = with_config(family.experts[0], tmp_path / "a", architectures=None)
    unnamed = plan_of(base=base, a=expert)
    less = dataclasses.replace(unnamed, steps=unnamed.steps[:-1])
    with ExpectedTensors(unnamed) as checks:
        assert not checks.of_plan().faults
    with ExpectedTensors(less) as checks:
        (fault,) = checks.of_plan().faults
    assert "lacks 'model.norm.weight'" in str(fault) or unnamed.steps[-1].output.name in str(fault)
    assert "name the class in config.json of the base; `--no-verify`" in str(fault)


def test_a_class_that_only_an_expert_names_is_the_output_s(family, tmp_path):
    """Without its head the base might be a bare LlamaModel; the expert says that it is none."""
    base = with_config(family.base, tmp_path / "base", architectures=None)
    named = plan_of(base=base, a=family.experts[0])
    steps = tuple(step for step in named.steps if step.output.name != "lm_head.weight")
    less = dataclasses.replace(named, steps=steps)
    with ExpectedTensors(less) as checks:
        (fault,) = checks.of_plan().faults
        assert "lacks 'lm_head.weight', which LlamaForCausalLM" in str(fault)
        assert not checks.of_files(base).faults


def test_a_config_without_model_type_is_read_by_its_class(family, tmp_path):
    base = with_config(family.base, tmp_path / "base", model_type=None)
    untyped = plan_of(base=base, a=family.experts[0])
    less = dataclasses.replace(untyped, steps=untyped.steps[:-1])
    assert can_look(less)
    with ExpectedTensors(less) as checks:
        assert checks.of_plan().loaded_as == "LlamaForCausalLM"
        assert checks.of_plan().faults
