"""A result that its dtype cannot hold is an error with tensor, coefficient, place and value."""

import re
import warnings

import numpy as np
import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import NonFiniteError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.overflow import holds_only_finite, overflow_error
from tests.merges.arithmetics import streamed
from tests.models import checkpoint_factory as factory

NAME = "model.layers.1.mlp.up_proj.weight"


def plan_of(tmp_path, text, base, **experts):
    """A plan over tiny Llamas; each dict of `experts` has values by (tensor, flat index)."""
    tensors = factory.base_tensors(factory.LLAMA)
    opened = {}
    for name, (dtype, values) in {"base": base, **experts}.items():
        made = {key: each.to(dtype) for key, each in tensors.items()}
        for (key, place), value in values.items():
            made[key].view(-1)[place] = value
        factory.write_checkpoint(tmp_path / name, made, factory.LLAMA)
        opened[name] = open_checkpoint(name, FolderSource(tmp_path / name), f"digest of {name}")
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened)


def refusal(plan, arithmetic, match, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NonFiniteError, match=match):
            streamed(plan, arithmetic, **{"threads": 2, "block": 1024, **settings})


TASK = """
merge_method: task_arithmetic
base_model: base
parameters: {lambda: 2.0}
models: [{model: a, parameters: {weight: 1}}]
"""
PASS = "merge_method: passthrough\ndtype: float16\nmodels: [{model: base}]"


def test_a_merge_in_float16(tmp_path, arithmetic):
    at = {(NAME, 3001): 40000.0}, {(NAME, 3001): 60000.0}
    plan = plan_of(tmp_path, TASK, (torch.float16, at[0]), a=(torch.float16, at[1]))
    refusal(
        plan,
        arithmetic,
        rf"tensor '{NAME}' of coefficient 'default': element 3001 becomes 80000, and float16 holds"
        r" at most 65504; choose `dtype: bfloat16` or `dtype: float32`. Nothing was written",
    )


@pytest.mark.parametrize(("value", "fits"), [(65519.0, True), (65520.0, False), (-1e6, False)])
def test_a_cast_to_float16(tmp_path, arithmetic, value, fits):
    plan = plan_of(tmp_path, PASS, (torch.float32, {(NAME, 7): value}))
    if fits:
        assert streamed(plan, arithmetic)
    else:
        refusal(
            plan,
            arithmetic,
            rf"'{NAME}' .*element 7 becomes {re.escape(f'{value:g}')}, and float16 holds",
        )


def test_a_cast_to_bfloat16(tmp_path, arithmetic):
    text = PASS.replace("float16", "bfloat16")
    largest = float.fromhex("0x1.fefp127")
    assert streamed(plan_of(tmp_path, text, (torch.float32, {(NAME, 7): largest})), arithmetic)
    plan = plan_of(tmp_path, text, (torch.float32, {(NAME, 7): 3.4e38}))
    refusal(plan, arithmetic, r"element 7 becomes 3.4e\+38, and bfloat16 holds .* `dtype: float32`")


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "della", "sce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_scale_beyond_float32(tmp_path, arithmetic, method, dtype):
    scale = "" if method == "sce" else "parameters: {lambda: 1.0e+300, density: 0.8}"
    if method in ("task_arithmetic", "sce"):
        scale = scale.replace(", density: 0.8", "")
    weight = "" if method == "sce" else ", parameters: {weight: 1}"
    text = f"merge_method: {method}\nbase_model: base\n{scale}\nmodels: [{{model: a{weight}}}"
    text += f", {{model: b{weight}}}]"
    large = 3e38 if dtype != torch.float16 else 60000.0
    change = {(NAME, place): large for place in range(0, 64, 2)}
    lower = {(NAME, place): -large for place in range(0, 64, 2)}
    plan = plan_of(tmp_path, text, (dtype, lower), a=(dtype, change), b=(dtype, change))
    if method == "sce" and dtype == torch.float16:
        return  # it has no scale, and these differences fit float32
    refusal(plan, arithmetic, r"becomes -?(inf|nan), which float32, that merges are computed in")


def test_weights_beyond_float32(tmp_path, arithmetic):
    text = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1.0e+308}},"
    text += " {model: a, parameters: {weight: 1.0e+308}}]"
    plan = plan_of(tmp_path, text, (torch.bfloat16, {}), a=(torch.bfloat16, {}))
    refusal(plan, arithmetic, r"element 0 becomes nan, which float32")


def test_the_coefficient_of_a_sweep_is_named(tmp_path, arithmetic):
    text = TASK.replace("parameters: {lambda: 2.0}", "sweep: {lambda: [0.5, 1.0, 3.0]}")
    at = {(NAME, 0): 40000.0}, {(NAME, 0): 50000.0}
    plan = plan_of(tmp_path, text, (torch.float16, at[0]), a=(torch.float16, at[1]))
    last = plan.coefficients[-1].id
    refusal(plan, arithmetic, rf"coefficient '{last}': element 0 becomes 69952")
    assert streamed(plan.with_coefficients([each.id for each in plan.coefficients[:2]]), arithmetic)


def test_an_infinite_input_is_told_as_before(tmp_path, arithmetic):
    plan = plan_of(tmp_path, TASK, (torch.bfloat16, {}), a=(torch.bfloat16, {(NAME, 5): np.inf}))
    refusal(plan, arithmetic, rf"model 'a': tensor '{NAME}' holds NaN or infinity")


def test_a_copy_of_infinity(tmp_path, arithmetic):
    text = "merge_method: passthrough\nmodels: [{model: base}]"
    plan = plan_of(tmp_path, text, (torch.bfloat16, {(NAME, 5): -np.inf}))
    refusal(plan, arithmetic, rf"tensor '{NAME}' holds NaN or infinity")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_stored_values(dtype):
    code = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}.get(dtype, "F64")
    values = torch.tensor([0.0, -1.0, torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype)
    assert holds_only_finite(values.view(torch.uint8).numpy(), code)
    for bad in (np.inf, -np.inf, np.nan):
        values[1] = bad
        assert not holds_only_finite(values.view(torch.uint8).numpy(), code)
    assert holds_only_finite(np.empty(0, np.uint8), code)


def test_values_that_fit_are_no_error():
    values = np.array([65519, -3e38, 1], dtype=np.float32)
    assert overflow_error("x", "", 0, values, "F32") is None
    error = overflow_error("x", "", 10, values, "F16")
    assert str(error).startswith("tensor 'x': element 11 becomes -3e+38, and float16")
