"""What holds of every registered method, on both arithmetics: one table, one set of promises."""

import dataclasses
from functools import partial
from pathlib import Path

import blake3
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import NonFiniteError, SettingsError
from merge_ops.jobs.assembly import merge
from merge_ops.measures import trimming
from merge_ops.methods import METHODS
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.reuse import tensor_keys
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.stream import BlockStream, StreamSettings
from tests.merges.arithmetics import ARITHMETICS, streamed
from tests.merges.method_settings import (
    USUAL,
    apply,
    inputs,
    other_value,
    usual_parameters,
    usual_value,
)
from tests.models import checkpoint_factory as factory

# These change singular values; their laws are in test_worked_examples_matrices.py.
FLATTENS_OR_CUTS_THE_SPECTRUM = ("iso_c", "iso_cts", "tsvm")
EQUAL_WEIGHTS_CANCEL = ("linear", "karcher", "nuslerp", "multislerp")
IN_RECIPES = ("weight", "density", "t", "select_topk", "gradient_values")
SWEPT = (0.003, 0.5)
SWEPT_OF = {"della": (0.3, 0.5), "della_linear": (0.3, 0.5), "model_stock": ("false", "true")}
BY_ROWS = {  # parameters with which a method sees rows, or sums columns
    "by-column": ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "by-row": ("nuslerp", {"nuslerp_flatten": False}),
    "filter-wise": ("model_stock", {"filter_wise": True}),
    "inverse-density": ("della", {"rescale": "inverse_density"}),
}


every_method = pytest.mark.parametrize("name", sorted(METHODS))


@every_method
def test_shape_dtype_and_untouched_inputs(name, arithmetic):
    method = METHODS[name]
    tensors = inputs(method)
    before = [tensor.clone() for tensor in tensors]
    out = apply(name, tensors, usual_parameters(method, len(tensors)))
    assert out.shape == tensors[0].shape
    assert out.dtype == torch.float32
    assert all(map(torch.equal, before, tensors))
    assert all(out.data_ptr() != tensor.data_ptr() for tensor in tensors)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, key)
        for name, method in sorted(METHODS.items())
        for key in method.parameter_specs
        if key != "trim"  # shows on several tensors only: test_whole_model.py
    ],
)
def test_every_parameter_changes_the_output(name, parameter, arithmetic):
    method = METHODS[name]
    tensors = [tensor * (k + 1) for k, tensor in enumerate(inputs(method))]
    other = other_value(method, parameter)
    if method.parameter_specs[parameter].per_input:  # of one only: what all share may cancel
        other = (other, *[usual_value(method, parameter)] * (len(tensors) - 1))
    reference = apply(name, tensors, usual_parameters(method, len(tensors)))
    changed = apply(name, tensors, usual_parameters(method, len(tensors), **{parameter: other}))
    assert not torch.equal(reference, changed)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in sorted(METHODS)
        if not METHODS[name].random and name not in FLATTENS_OR_CUTS_THE_SPECTRUM
    ],
)
def test_merging_equal_inputs_gives_that_input(name, arithmetic):
    method = METHODS[name]
    one = inputs(method)[0]
    count = method.exactly or 3
    changes = {"density": 1.0, "normalize": True, "lambda": 1.0, "epsilon": 0.0}
    changes |= {"select_topk": 1.0, "extrapolation": 0.0}
    if name == "nearswap":
        changes["t"] = 10.0  # more than any difference
    if name == "pcb":
        one[one.abs().argmin()] = 0.0  # the weakest claim of a tensor is never kept
    out = apply(
        name, [one.clone() for _ in range(count)], usual_parameters(method, count, **changes)
    )
    torch.testing.assert_close(out, one, rtol=1e-6, atol=1e-7)


@given(st.permutations([0, 1, 2]), st.sampled_from(["linear", "task_arithmetic", "ties"]))
@settings(deadline=None, max_examples=24)
@pytest.mark.usefixtures("arithmetic")
def test_the_order_of_experts_does_not_matter(order, name):
    method = METHODS[name]
    # small integers: sums are exact, so the order of addition cannot show
    tensors = [tensor.mul(8).round() for tensor in inputs(method)]
    parameters = usual_parameters(method, 3, density=1.0)
    first = apply(name, tensors, parameters)
    second = apply(name, [tensors[k] for k in order], parameters)
    assert torch.equal(first, second)


@given(st.floats(0.05, 1.0), st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_dare_with_inverse_density_is_unbiased(density, seed):
    """E[δ̂] = δ: over the elements of a constant task vector, the mean is the constant."""
    method, n = METHODS["dare_linear"], 20_000
    parameters = usual_parameters(method, 1, density=density, rescale="inverse_density")
    out = apply("dare_linear", [torch.ones(n)], parameters, seed)
    deviation = ((1 - density) / density / n) ** 0.5
    assert abs(float(out.double().mean()) - 1) <= 6 * deviation + 1e-6


@given(st.integers(1, 400), st.floats(0.01, 0.99))
@settings(deadline=None, max_examples=50)
@pytest.mark.usefixtures("arithmetic")
def test_ties_keeps_exactly_the_share_asked_for(n, density):
    method = METHODS["ties"]
    values = torch.randn(n, generator=torch.Generator().manual_seed(n))
    out = apply("ties", [values], usual_parameters(method, 1, density=density))
    assert int((out != 0).sum()) == max(1, int(density * n))


def test_slerp_ends_at_its_inputs(arithmetic):
    method = METHODS["slerp"]
    first, second = inputs(method)
    for t, end in ((0.0, first), (1.0, second)):
        torch.testing.assert_close(
            apply("slerp", [first, second], usual_parameters(method, 2, t=t)), end
        )


# ------------------------------------------------------------------ the same through the stream


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    shape = factory.Shape("qwen2", layers=1, hidden=128, vocabulary=1040, tied=True)
    return factory.write_family(tmp_path_factory.mktemp("stream"), shape, experts=3)


def yaml_of(value):
    return list(value) if isinstance(value, tuple) else value


def recipe_for(name, family, extra=""):
    method = METHODS[name]
    with_base = method.inputs == "checkpoints" and method.base == "required"
    experts = family.experts[: (method.exactly or 3) - with_base]
    lines = [f"merge_method: {name}", "models:"]
    if name not in ("passthrough", "nuslerp", "multislerp"):
        lines.insert(1, f"base_model: {family.base}")
    lines += [f"  - model: {folder}" for folder in experts]
    wanted = [key for key in IN_RECIPES if key in method.parameter_specs]
    lines += ["parameters:", *(f"  {key}: {yaml_of(USUAL[key])}" for key in wanted), extra]
    return parse_recipe("\n".join(lines), name, f"{name}.yaml")


def run(recipe, out, **how):
    opened = {n: open_checkpoint(n, FolderSource(Path(n)), n) for n in recipe.referenced_models}
    plan = plan_merge(recipe, opened)
    sinks = {each.id: FolderSink(out / each.id) for each in plan.coefficients}
    report = merge(plan, sinks, StreamSettings(device="cpu", **how))
    digests = {
        each.id: blake3.blake3((out / each.id / "model.safetensors").read_bytes()).hexdigest()
        for each in plan.coefficients
    }
    return digests, report


def planned(recipe):
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in recipe.referenced_models}
    return plan_merge(recipe, opened)


@every_method
def test_threads_blocks_and_arithmetics_do_not_change_a_bit(name, family):
    plan = planned(recipe_for(name, family))
    files = {
        (kind, threads, block): streamed(plan, each, threads=threads, block=block)["default"]
        for kind, each in ARITHMETICS.items()
        for threads, block in ((1, 1 << 24), (2, 1 << 16), (4, 1 << 17))
    }
    assert len(set(files.values())) == 1, files


def with_parameters(recipe, **values):
    return dataclasses.replace(recipe, parameters={**recipe.parameters, **values})


@pytest.fixture(scope="module")
def odd_family(tmp_path_factory):
    """980 rows of 136: blocks of rows are no blocks of elements, and the last one is shorter."""
    shape = factory.Shape("llama", layers=1, hidden=136, vocabulary=980, tied=True)
    return factory.write_family(tmp_path_factory.mktemp("odd"), shape, experts=3)


@pytest.mark.parametrize("case", [*BY_ROWS, "della", "della_linear", "arcee_fusion"])
def test_where_rows_end_does_not_change_a_bit(case, odd_family, arithmetic):
    name, values = BY_ROWS.get(case, (case, {}))
    plan = planned(with_parameters(recipe_for(name, odd_family), **values))
    digests = {
        streamed(plan, arithmetic, threads=2, block=block)["default"]
        for block in (1 << 16, 1 << 17, 1 << 24)
    }
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model_stock", {"filter_wise": [True, False]}),
        ("nuslerp", {"nuslerp_flatten": [True, False], "nuslerp_row_wise": [True, False]}),
    ],
)
def test_a_sweep_over_spans_equals_each_of_them_alone(name, values, odd_family, arithmetic):
    recipe = recipe_for(name, odd_family)
    sweep = dataclasses.replace(recipe, sweep=values)
    swept = streamed(planned(sweep), arithmetic, block=1 << 16)
    for point in sweep.coefficients():
        alone = with_parameters(recipe, **point.values)
        single = streamed(planned(alone), arithmetic, block=1 << 16)
        assert swept[point.id] == single["default"], point.id


@pytest.mark.parametrize(
    "name", [name for name in sorted(METHODS) if METHODS[name].parameter_specs]
)
def test_a_point_of_a_sweep_equals_the_same_merge_alone(name, family, arithmetic):
    method = METHODS[name]
    keys = ("density", "lambda", "t", "weight", "scale", "tol", "epsilon", "select_topk")
    keys += ("gradient_values", "extrapolation", "filter_wise", "score_calibration_value")
    key = next(k for k in keys if k in method.parameter_specs)
    low, high = SWEPT_OF.get(name, SWEPT)
    sweep = f"sweep: {{{key}: [{low}, {high}]}}"
    swept = streamed(planned(recipe_for(name, family, sweep)), arithmetic)
    alone = with_parameters(recipe_for(name, family), **{key: yaml.safe_load(str(high))})
    single = streamed(planned(alone), arithmetic)
    assert swept[f"{key}={high}"] == single["default"]
    assert swept[f"{key}={low}"] != swept[f"{key}={high}"] or name in EQUAL_WEIGHTS_CANCEL


def test_a_sweep_reads_every_byte_of_an_elementwise_merge_once(family, tmp_path):
    class Counting(FolderSource):
        read = 0

        def read_into(self, file, offset, buffer):
            if file.endswith(".safetensors"):
                Counting.read += len(buffer)
            super().read_into(file, offset, buffer)

    recipe = recipe_for("task_arithmetic", family, "sweep: {lambda: [0.1, 0.2, 0.3, 0.4]}")
    names = recipe.referenced_models
    opened = {name: open_checkpoint(name, Counting(Path(name))) for name in names}
    Counting.read = 0
    plan = plan_merge(recipe, opened)
    merge(plan, {c.id: FolderSink(tmp_path / c.id) for c in plan.coefficients})
    assert plan.bytes_read <= Counting.read < plan.bytes_read + 100_000  # and side files


@pytest.mark.parametrize("name", ["linear", "ties", "dare_ties"])
def test_nan_in_an_expert_stops_the_merge_and_names_it(name, family, tmp_path):
    put_value = partial(factory.put_value, layer=0)
    spoiled = factory.spoiled(family.experts[0], tmp_path / "bad", put_value)
    recipe = recipe_for(name, family)
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in recipe.referenced_models}
    opened[str(family.experts[0])] = open_checkpoint("the bad one", FolderSource(spoiled))
    plan = plan_merge(recipe, opened)
    with pytest.raises(
        NonFiniteError, match=r"'the bad one'.*mlp.down_proj.weight.*NaN or infinity"
    ):
        merge(plan, {"default": FolderSink(tmp_path / "out")})


def test_the_block_follows_from_memory_threads_and_inputs():
    few = StreamSettings(threads=2, memory=256 << 20)
    assert few.block_for(3, 1) == 512 * 1024
    assert few.block_for(8, 1) == 512 * 1024
    assert few.block_for(16, 1) == 256 * 1024
    assert few.block_for(72, 1) == 65_536
    assert StreamSettings(threads=2, memory=64 << 20).block_for(8, 1) == 128 * 1024
    with pytest.raises(
        SettingsError, match=r"memory is 8 MiB; 72 inputs, 1 coefficient\(s\) and 2"
    ):
        StreamSettings(threads=2, memory=8 << 20).block_for(72, 1)
    assert StreamSettings(threads=2, block=100_000).block_for(3, 1) == 65_536


@pytest.mark.parametrize("values", [{"rescale": "l1_norm"}, {"trim": "global"}, {}])
@pytest.mark.parametrize("name", ["ties", "breadcrumbs"])
def test_measuring_experts_in_groups_does_not_change_a_bit(
    name, values, family, tmp_path, monkeypatch
):
    """Of nine and more experts some are measured after the others; here of two and more."""
    recipe = with_parameters(recipe_for(name, family), **values)
    found = []
    for together in (trimming.TOGETHER, 2, 1):
        monkeypatch.setattr(trimming, "TOGETHER", together)
        found.append(run(recipe, tmp_path / str(together), block=1 << 16)[0]["default"])
    assert found[0] == found[1] == found[2]


def test_progress_reaches_the_end(family):
    recipe = recipe_for("ties", family)
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in recipe.referenced_models}
    plan = plan_merge(recipe, opened)
    seen = []
    BlockStream(plan, StreamSettings()).run(
        lambda index, blocks: None, lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (plan.bytes_read, plan.bytes_read)
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", ["linear", "tsvm"])
def test_a_kind_of_arithmetic_has_digests_and_reuse_of_its_own(name, family, monkeypatch):
    """On the CPU that is one kind, but for what rests on the processor's linear algebra."""
    recipe = recipe_for(name, family)
    opened = {n: open_checkpoint(n, FolderSource(Path(n)), n) for n in recipe.referenced_models}
    tensors = {n: dict.fromkeys(opened[n].tensors, n) for n in opened}

    def told(arithmetic):
        plan = plan_merge(recipe, opened, arithmetic=arithmetic)
        return plan.outputs[0].digest, tensor_keys(plan, tensors)[0]["model.norm.weight"]

    here = told("cpu")
    assert all(map(str.__ne__, here, told("cuda, a GPU")))
    monkeypatch.setenv("MKL_ENABLE_INSTRUCTIONS", "AVX2")
    assert (told("cpu") == here) == (not METHODS[name].by_lapack)
