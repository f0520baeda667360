"""Whole numbers are copied where the models agree in them, and refused by name where not."""

from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.agreement import integer_agreement
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.step_plans import plan_steps
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import load_steps
from tests.models import checkpoint_factory as factory

HEAD = "merge_method: linear\nparameters: {weight: 0.5}\n"
MODELS = HEAD + "models: [{model: a}, {model: b}]\n"
SLICES = HEAD + (
    "slices:\n  - sources: [{model: a, layer_range: [0, 2]}, {model: b, layer_range: [1, 3]}]\n"
)
MODULES = HEAD + "modules:\n  model: {models: [{model: a}, {model: b}]}\n"
DIFFER = "integer tensors differ between the models and cannot be averaged"


class Counting(FolderSource):
    """A folder that counts the bytes that are read of its weights."""

    read = 0

    def read_into(self, file, offset, buffer):
        self.read += len(buffer) if file.endswith(".safetensors") else 0
        super().read_into(file, offset, buffer)


def models_of(tmp_path: Path, **extra: factory.Tensors):
    opened = {}
    for seed, (name, tensors) in enumerate(extra.items()):
        weights = factory.base_tensors(factory.LLAMA, seed)
        factory.write_checkpoint(tmp_path / name, weights | tensors, factory.LLAMA)
        opened[name] = open_checkpoint(name, Counting(tmp_path / name), name)
    return opened


def planned(text: str, opened):
    return plan_merge(parse_recipe(text, "r", "r.yaml"), opened)


TABLES = {
    "model.table": torch.arange(6),
    "model.layers.1.allowed": torch.tensor([True, False]),
    "model.freqs": torch.ones(3, dtype=torch.complex64),
    "model.codes": torch.arange(6, dtype=torch.int8),
}


@pytest.mark.parametrize("name", TABLES)
def test_equal_numbers_are_copied_and_others_refused(tmp_path, name):
    table = TABLES[name]
    other = ~table if table.dtype == torch.bool else table + 1
    (tmp_path / "other").mkdir()
    alike = models_of(tmp_path, a={name: table}, b={name: table.clone()})
    apart = models_of(tmp_path / "other", a={name: table}, b={name: other})
    actions = {step.output.name: step.action for step in planned(MODELS, alike).steps}
    assert actions[name] == "copy"
    with pytest.raises(CompatibilityError, match=f"b has other numbers in '{name}' .*{DIFFER}"):
        planned(MODELS, apart)


@pytest.mark.parametrize("recipe", [MODELS, SLICES, MODULES])
def test_slices_and_modules_compare_too(tmp_path, recipe):
    one = {f"model.layers.{n}.table": torch.arange(4) for n in range(3)}
    other = {name: table + 1 for name, table in one.items()}
    with pytest.raises(CompatibilityError, match=DIFFER):
        planned(recipe, models_of(tmp_path, a=one, b=other))


def test_what_no_method_combines_is_not_compared(tmp_path):
    models = models_of(
        tmp_path, a={"model.table": torch.arange(4)}, b={"model.table": torch.ones(4).long()}
    )
    recipe = "merge_method: passthrough\nslices:\n" + "".join(
        f"  - sources: [{{model: {name}, layer_range: [0, 2]}}]\n" for name in "ab"
    )
    assert planned(recipe, models).steps


def test_a_large_tensor_is_read_to_the_first_block_that_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(integer_agreement, "BLOCK_BYTES", 1 << 10)
    table = torch.arange(1 << 13)
    other = table.clone()
    other[200] = 0
    models = models_of(tmp_path, a={"model.table": table}, b={"model.table": other})
    before = models["a"].source.read
    with pytest.raises(CompatibilityError, match=DIFFER):
        planned(MODELS, models)
    assert models["a"].source.read - before == 2 << 10


def test_other_dtypes_and_shapes_are_refused_by_name(tmp_path):
    models = models_of(
        tmp_path, a={"model.t": torch.arange(4)}, b={"model.t": torch.arange(4).int()}
    )
    with pytest.raises(CompatibilityError, match=r"b holds 'model.t' as I32, a as I64"):
        planned(MODELS, models)
    (tmp_path / "n").mkdir()
    models = models_of(
        tmp_path / "n", a={"model.t": torch.arange(4)}, b={"model.t": torch.arange(5)}
    )
    with pytest.raises(CompatibilityError, match=r"b has another shape: 'model.t' is \[5\]"):
        planned(MODELS, models)


@pytest.mark.parametrize("equal", [True, False])
def test_a_result_that_is_not_merged_yet_holds_its_models_numbers(tmp_path, equal):
    table = torch.arange(4)
    other = table if equal else table + 1
    models = models_of(
        tmp_path, a={"model.t": table}, b={"model.t": table.clone()}, c={"model.t": other.clone()}
    )
    text = f"{MODELS}name: first\n---\n{HEAD}models: [{{model: first}}, {{model: c}}]\n"
    (tmp_path / "steps.yaml").write_text(text)
    steps = load_steps(tmp_path / "steps.yaml")
    if equal:
        assert plan_steps(steps, models).result.steps
    else:
        with pytest.raises(
            CompatibilityError, match=f"c has other numbers in 'model.t' .*{DIFFER}"
        ):
            plan_steps(steps, models)


def test_float64_is_told_with_what_becomes_of_it(tmp_path):
    double = {"model.table": torch.ones(4, dtype=torch.float64)}
    plan = planned(MODELS, models_of(tmp_path, a=double, b=double))
    told = [str(caution) for caution in plan.cautions]
    assert any("'model.table' in float64; a merge computes in float32" in each for each in told)
