"""What is measured over the whole model: `trim: global` equals a sort of everything at once."""

from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import NonFiniteError, RecipeError
from merge_ops.jobs.assembly import merge
from merge_ops.measures import trimming
from merge_ops.methods import METHODS
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.stream import BlockStream, StreamSettings
from tests.models import checkpoint_factory as factory

SETTINGS = ((1, 1 << 16), (2, 1 << 16), (4, 1 << 17), (2, 1 << 24))


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def family(tmp_path_factory, request):
    """In bfloat16 thousands of task vector entries are equal, and the threshold is one of them."""
    shape = factory.Shape("qwen2", layers=2, hidden=128, vocabulary=1400, dtype=request.param)
    return factory.write_family(tmp_path_factory.mktemp("whole"), shape, experts=2)


def planned(family, method="ties", parameters="density: 0.2", extra="", experts=1, **how):
    trim = how.get("trim", "global")
    lines = [f"merge_method: {method}", f"base_model: {family.base}", "dtype: float32", "models:"]
    lines += [f"  - model: {folder}" for folder in family.experts[:experts]]
    lines += [f"parameters: {{weight: 1, trim: {trim}, {parameters}}}", extra]
    recipe = parse_recipe("\n".join(lines), "study", "study.yaml")
    source = how.get("source", FolderSource)
    opened = {n: open_checkpoint(n, source(Path(n))) for n in recipe.referenced_models}
    return plan_merge(recipe, opened)


def merged(plan, out, **how):
    merge(
        plan,
        {each.id: FolderSink(out / each.id) for each in plan.coefficients},
        StreamSettings(device="cpu", **how),
    )
    return {each.id: factory.read_tensors(out / each.id) for each in plan.coefficients}


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def by_sorting(family, plan, density, outliers=0.0):
    """The reference: one stable sort of the task vector's magnitudes, in the plan's order."""
    base, expert = (factory.read_tensors(each) for each in (family.base, family.experts[0]))
    names = [each.output.name for each in plan.steps]
    base = {name: base[name].float() for name in names}
    delta = torch.cat([(expert[name].float() - base[name]).flatten() for name in names])
    dropped = int(outliers * len(delta))
    k = max(1, int(density * len(delta)))
    places = torch.sort(delta.abs(), descending=True, stable=True).indices[dropped : dropped + k]
    kept = torch.zeros_like(delta)
    kept[places] = delta[places]
    parts = kept.split([base[name].numel() for name in names])
    return {n: base[n] + part.view_as(base[n]) for n, part in zip(names, parts, strict=True)}


@pytest.mark.parametrize("density", [0.01, 0.2, 0.7])
def test_ties_equals_one_sort_over_all_tensors(family, tmp_path, density):
    plan = planned(family, parameters=f"density: {density}")
    assert same(merged(plan, tmp_path)["default"], by_sorting(family, plan, density))


def test_breadcrumbs_equals_one_sort_over_all_tensors(family, tmp_path):
    plan = planned(family, "breadcrumbs", "density: 0.3, gamma: 0.05")
    assert same(merged(plan, tmp_path)["default"], by_sorting(family, plan, 0.3, 0.05))


def test_rescaling_restores_the_sum_over_the_whole_model(family, tmp_path):
    plan = planned(family, parameters="density: 0.3, rescale: true")
    out = merged(plan, tmp_path)["default"]
    base, expert = (factory.read_tensors(each) for each in (family.base, family.experts[0]))
    sums = [
        sum(float((each[name].double() - base[name].double()).abs().sum()) for name in base)
        for each in (expert, out)
    ]
    assert sums[1] == pytest.approx(sums[0], rel=1e-5)


@pytest.mark.parametrize("method", [name for name in sorted(METHODS) if METHODS[name].model_wide])
def test_threads_and_blocks_do_not_change_a_bit(family, tmp_path, method):
    plan = planned(family, method, "density: 0.3, rescale: true", experts=2)
    first, *others = (
        merged(plan, tmp_path / str(number), threads=threads, block=block)["default"]
        for number, (threads, block) in enumerate(SETTINGS)
    )
    assert all(same(first, other) for other in others)


def test_values_that_cannot_be_held_cost_rounds_but_not_correctness(family, tmp_path, monkeypatch):
    monkeypatch.setattr(trimming, "INSIDE_LIMIT", 100)
    plan = planned(family)
    out = merged(plan, tmp_path, block=1 << 16)["default"]
    assert same(out, by_sorting(family, plan, 0.2))


def test_a_sweep_over_both_scopes_equals_each_alone(family, tmp_path):
    swept = merged(planned(family, extra="sweep: {trim: [per_tensor, global]}"), tmp_path / "both")
    everywhere = merged(planned(family), tmp_path / "global")["default"]
    each = merged(planned(family, parameters="density: 0.2", trim="per_tensor"), tmp_path / "each")
    assert same(swept["trim=global"], everywhere)
    assert same(swept["trim=per_tensor"], each["default"])
    assert not same(each["default"], everywhere)


@pytest.mark.parametrize("limit", [100, 1 << 24])
def test_progress_never_goes_back_and_reaches_the_end(family, monkeypatch, limit):
    monkeypatch.setattr(trimming, "INSIDE_LIMIT", limit)
    plan, seen = planned(family), []
    BlockStream(plan, StreamSettings(block=1 << 16)).run(
        lambda index, blocks: None, lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (plan.bytes_read, plan.bytes_read)
    assert seen == sorted(seen)


def test_inputs_are_read_twice(family, tmp_path):
    class Counting(FolderSource):
        read = 0

        def read_into(self, file, offset, buffer):
            if file.endswith(".safetensors"):
                Counting.read += len(buffer)
            super().read_into(file, offset, buffer)

    plan = planned(family, source=Counting)
    Counting.read = 0
    merged(plan, tmp_path)
    sample = plan.bytes_read // 4
    assert 2 * plan.bytes_read <= Counting.read < 2 * plan.bytes_read + sample + 100_000


def test_nan_is_found_while_measuring(family, tmp_path):
    spoiled = factory.spoiled(family.experts[0], tmp_path / "bad", factory.put_value)
    plan = planned(type(family)(family.base, (spoiled,)))
    with pytest.raises(NonFiniteError, match=r"mlp.down_proj.weight.*NaN or infinity"):
        merged(plan, tmp_path / "out")


def test_a_density_that_differs_by_tensor_is_refused(family):
    with pytest.raises(
        RecipeError,
        match=r"parameters.density is 0.2 for '.*' and 0.3 for '.*'; with `trim: global` it must"
        r" be one for all tensors: take out its filters and gradients",
    ):
        planned(family, parameters="density: [{filter: mlp, value: 0.3}, {value: 0.2}]")


def test_slices_of_different_experts_are_refused(family):
    """One threshold an expert over the whole model: every slice must merge the same experts."""
    one, two = family.experts
    text = f"""
merge_method: ties
base_model: {family.base}
parameters: {{weight: 1, trim: global}}
slices:
  - sources:
      - {{model: {family.base}, layer_range: [0, 1]}}
      - {{model: {one}, layer_range: [0, 1]}}
  - sources:
      - {{model: {family.base}, layer_range: [1, 2]}}
      - {{model: {two}, layer_range: [1, 2]}}
"""
    recipe = parse_recipe(text, "study", "study.yaml")
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in recipe.referenced_models}
    with pytest.raises(RecipeError, match=r"trim: global .* the slices merge different experts"):
        plan_merge(recipe, opened)
    same_in_both = parse_recipe(text.replace(str(two), str(one)), "study", "study.yaml")
    plan_merge(same_in_both, opened)
