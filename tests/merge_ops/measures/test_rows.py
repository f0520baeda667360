"""Rows: sums and ranks are the same bits whichever rows share a block; laws of methods on rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import RecipeError
from merge_ops.kernels.torch_arithmetic import sums_by_halves
from merge_ops.kernels.torch_masks import row_ranks
from merge_ops.measures import rows as of_rows
from merge_ops.measures.measure import Block, TensorJob, measure_whole
from merge_ops.measures.randomness import stream_key, thresholds
from merge_ops.measures.rows import column_sums
from merge_ops.methods import METHODS
from merge_ops.methods.arcee_fusion import ArceeFusionParameters, row_divergence
from merge_ops.methods.dare import DareParameters
from merge_ops.methods.della import DellaLinearParameters, keep_chances
from merge_ops.methods.nuslerp import NuslerpParameters
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.steps import Merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.ranges import ranges as element_ranges
from tests.merges.arithmetics import current
from tests.merges.method_settings import merged_whole
from tests.models import checkpoint_factory as factory

pytestmark = pytest.mark.usefixtures("arithmetic")

KEY = stream_key(42, "model.layers.0.mlp.up_proj.weight", "herbs")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def row_sums(values):
    """Σ x · 1 of every row, by the arithmetic of the test."""
    return of_rows.row_sums(current(), values, torch.ones_like(values))


def uneven(*shape, seed=0):
    """Values of many magnitudes: sums of them show the order of addition, in float64 too."""
    return normal(*shape, seed=seed) * torch.exp(10 * normal(*shape, seed=seed + 1))


@given(st.integers(1, 200), st.sampled_from([1, 2, 3, 7, 8, 17, 64, 129, 1000, 4099]))
@settings(deadline=None, max_examples=60)
def test_a_row_sum_does_not_depend_on_the_other_rows(rows, length):
    values = uneven(rows, length, seed=rows)
    alone = np.concatenate([row_sums(values[k : k + 1]) for k in range(rows)])
    assert np.array_equal(row_sums(values), alone)
    np.testing.assert_allclose(alone, values.double().sum(1).numpy(), rtol=1e-9)


@given(st.integers(1, 50), st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_sums_by_halves_do_not_depend_on_the_other_rows_either(rows, length):
    values = uneven(rows, length, seed=rows)
    lanes = values.double().unsqueeze(-1)
    alone = torch.cat([sums_by_halves(lanes[k : k + 1]) for k in range(rows)])
    assert torch.equal(sums_by_halves(lanes), alone)
    torch.testing.assert_close(alone[:, 0], values.double().sum(1), rtol=1e-9, atol=0)


def test_rows_longer_than_a_leaf():
    values = uneven(3, 100_003)
    alone = np.concatenate([row_sums(values[k : k + 1]) for k in range(3)])
    assert np.array_equal(row_sums(values), alone)


@given(st.integers(1, 300), st.integers(0, 9), st.integers(1, 40))
@settings(deadline=None, max_examples=80)
def test_column_sums_of_runs_of_rows_are_parts_of_the_sum_of_all(rows, power, columns):
    values = uneven(rows, columns, seed=rows)
    runs = values.split(2**power)
    together = column_sums(torch.cat([column_sums(run) for run in runs]))
    whole = column_sums(values)
    assert torch.equal(together, whole)
    torch.testing.assert_close(whole[0], values.double().sum(0))


def test_column_sums_of_other_runs_are_not():
    """Which is why the stream cuts rows in powers of two."""
    values = uneven(1000, 64)
    together = column_sums(torch.cat([column_sums(run) for run in values.split(100)]))
    assert not torch.equal(together, column_sums(values))


@given(st.integers(1, 2000), st.integers(1, 5000), st.integers(1, 1 << 20))
def test_blocks_of_rows_are_powers_of_two(rows, length, block):
    shape = (rows, length)
    entry = TensorEntry("F32", shape, "f", 0, 4 * rows * length)
    tensor = Merge(OutputTensor("t", "F32", shape), None, (entry,), (), "row")
    ranges = element_ranges(tensor, block)
    counts = [count // length for _, count in ranges]
    assert all(count % length == 0 for _, count in ranges)
    assert [start for start, _ in ranges] == [k * counts[0] * length for k in range(len(ranges))]
    assert sum(counts) == rows
    assert len(counts) == 1 or counts[0] & (counts[0] - 1) == 0
    assert max(counts) * length <= max(block, length)
    assert len(counts) == 1 or counts[0] * length * 2 > block or counts[0] == 1


@given(st.integers(1, 40), st.integers(1, 300), st.booleans())
@settings(deadline=None, max_examples=60)
def test_ranks_are_those_of_a_stable_sort(rows, length, crowded):
    magnitude = normal(rows, length, seed=length).abs()
    if crowded:
        magnitude = magnitude.round()
    order = torch.argsort(magnitude, dim=1, stable=True)
    ranks = order.argsort(dim=1)
    assert torch.equal(row_ranks(magnitude), ranks)
    table = np.arange(length, dtype=np.float32)
    assert np.array_equal(np.asarray(current().by_rank(table, magnitude)), ranks.numpy())


def test_equal_values_rank_by_index():
    assert row_ranks(torch.tensor([[0.0, 2.0, 0.0, 1.0, 2.0]])).tolist() == [[0, 3, 1, 2, 4]]


@pytest.mark.parametrize("chance", [0.01, 0.5, 0.99])
def test_one_chance_for_all_ranks_is_the_plain_mask(chance):
    rows, limits = normal(70, 1001), thresholds(np.full(1001, chance))
    decided = current().decide_by_rank(KEY, 13, rows, limits)
    kept = np.asarray(current().apply_decided(rows, decided, 1.0))
    plain = current().keep_random(KEY, 13, rows.view(-1), int(limits[0]))
    assert np.array_equal(kept.reshape(-1), np.asarray(plain))


def test_each_rank_keeps_its_share():
    chances, n = np.array([0.1, 0.5, 0.8]), 100_000
    rows = torch.tensor([[1.0, 2.0, 3.0]]).expand(n, 3).contiguous()
    decided = current().decide_by_rank(KEY, 0, rows, thresholds(chances))
    kept = np.asarray(current().apply_decided(rows, decided, 1.0)) != 0
    for rank, chance in enumerate(chances):
        assert abs(kept[:, rank].mean() - chance) < 5 * (chance * (1 - chance) / n) ** 0.5


def known(name, tensors, parameters, seed=5):
    """What the method sees of a whole tensor beside its inputs; what was dropped as tensors."""
    names = ("e0", "e1")[: len(tensors)]
    job = TensorJob("t", tuple(tensors[0].shape), names, seed, current())
    measure = METHODS[name].measure(job, [parameters])
    block = Block(0, 0, tensors)
    measure_whole(measure, block, current())
    seen = measure.at(block, 0)
    return [torch.as_tensor(each) for each in seen] if METHODS[name].sees == "dropped" else seen


@pytest.mark.parametrize("rescale", ["none", "inverse_density"])
def test_della_without_epsilon_is_dare(rescale):
    delta = normal(50, 64)
    (ours,) = known(
        "della_linear", [delta], DellaLinearParameters((1.0,), (0.4,), (0.0,), False, rescale, 1.0)
    )
    dare = DareParameters((1.0,), (0.4,), False, rescale, 1.0)
    (theirs,) = known("dare_linear", [delta.view(-1)], dare)
    torch.testing.assert_close(ours.view(-1), theirs, rtol=1e-6, atol=0)


@given(st.floats(0.05, 0.95), st.floats(0, 0.98), st.integers(0, 10_000), st.integers(1, 300))
@settings(deadline=None, max_examples=40)
def test_della_with_inverse_density_is_unbiased(density, share, seed, length):
    """E[δ̂] = δ: of δ̂ / δ, each 1 in the mean with variance 1/p − 1, the mean over all entries."""
    epsilon = share * min(density, 1 - density)
    delta = normal(20_000 // length, length).abs() + 0.1
    parameters = DellaLinearParameters(
        (1.0,), (density,), (epsilon,), False, "inverse_density", 1.0
    )
    (out,) = known("della_linear", [delta], parameters, seed)
    variance = (1 / keep_chances(density, epsilon, length) - 1).mean() / delta.numel()
    assert abs(float((out / delta).double().mean()) - 1) <= 6 * variance**0.5 + 1e-6


def test_large_entries_of_a_row_stay_more_often():
    """With d = 0.5 and ε = 0.3 the lower half of a row is kept with 0.35 in the mean."""
    delta = normal(4000, 64)
    parameters = DellaLinearParameters((1.0,), (0.5,), (0.3,), False, "none", 1.0)
    (out,) = known("della_linear", [delta], parameters)
    kept = (out != 0).double()
    small = delta.abs() <= delta.abs().median(dim=1, keepdim=True).values  # the lower of two
    below = keep_chances(0.5, 0.3, 64)[:32].mean()
    above = keep_chances(0.5, 0.3, 64)[32:].mean()
    for half, chance in ((small, below), (~small, above)):
        assert float(kept[half].mean()) == pytest.approx(chance, abs=5 * (0.25 / 128_000) ** 0.5)


def plan_with(tmp_path, text):
    base, (one,) = factory.write_family(tmp_path, factory.QWEN2, experts=1)
    lines = f"merge_method: della\nbase_model: {base}\nmodels:\n  - model: {one}\n{text}"
    recipe = parse_recipe(lines, "della", "della.yaml")
    opened = {n: open_checkpoint(n, FolderSource(Path(n))) for n in recipe.referenced_models}
    return plan_merge(recipe, opened)


@pytest.mark.parametrize(("density", "room"), [(0.1, "0.1"), (0.9, "0.1"), (0.15, "0.15")])
def test_chances_beyond_zero_or_one_are_refused_by_the_plan(tmp_path, density, room):
    wrong = (
        rf"parameters.epsilon is 0.15 with density {density:g}; .* must be below {room} here"
        r" \(at tensor 'model.embed_tokens.weight'\)"
    )
    with pytest.raises(RecipeError, match=wrong):
        plan_with(tmp_path, f"parameters: {{weight: 1, density: {density}}}")


def test_where_nothing_is_dropped_any_epsilon_goes(tmp_path):
    assert plan_with(tmp_path, "parameters: {weight: 1, density: 1, epsilon: 0.9}").steps


def threshold_by_sorting(base, expert):
    importance = (
        ((expert - base).abs() * row_divergence(current(), base, expert)).flatten().sort().values
    )
    first, median, third = (importance[k * (len(importance) - 1) // 4] for k in (1, 2, 3))
    return float(median + 1.5 * (third - first))


@given(st.integers(1, 120), st.integers(1, 60), st.integers(0, 6), st.booleans())
@settings(deadline=None, max_examples=60)
def test_arcee_fusion_finds_the_quartiles_of_a_sort(rows, length, power, crowded):
    base, expert = normal(rows, length), normal(rows, length, seed=1)
    if crowded:
        expert = base + (expert - base).round() * 0.5
    method = METHODS["arcee_fusion"]
    job = TensorJob("t", (rows, length), ("base", "e"), 0, current())
    measure = method.measure(job, [ArceeFusionParameters()])
    blocks = [
        Block(k, k * 2**power * length, pair)
        for k, pair in enumerate(zip(base.split(2**power), expert.split(2**power), strict=True))
    ]
    rounds = 0
    while measure.wanted:
        measure.absorb([measure.observe(block) for block in blocks])
        rounds += 1
    assert measure.at(blocks[0], 0).threshold == threshold_by_sorting(base, expert)
    assert rounds <= 6


def test_arcee_fusion_is_exact_beyond_a_million_entries():
    """There mergekit takes quartiles of a random sample; two rounds find them here."""
    base, expert = normal(1200, 1000), normal(1200, 1000, seed=1)
    parameters = ArceeFusionParameters()
    statistics = known("arcee_fusion", [base, expert], parameters)
    assert statistics.threshold == threshold_by_sorting(base, expert)


def test_divergence_of_near_rows_is_exact():
    """KL ≈ ½ Σ p d² − ½ (Σ p d)² for a small d; float32 would find mostly rounding here."""
    base, change = normal(64, 4096).mul(0.02), normal(64, 4096, seed=1).mul(1e-4)
    p, d = torch.softmax(base.double(), 1), (base + change).double() - base.double()
    expected = ((p * d * d).sum(1) - (p * d).sum(1) ** 2) / 2
    found = row_divergence(current(), base, base + change)[:, 0].double()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)
    single = torch.softmax(base, 1), torch.softmax(base + change, 1)
    rough = (single[1] * (single[1] / single[0]).log()).sum(1).double()
    assert ((rough - expected).abs() / expected).median() > 0.05


@given(st.integers(2, 40), st.integers(2, 40))
@settings(deadline=None, max_examples=30)
def test_nuslerp_by_column_is_nuslerp_by_row_of_the_transpose(rows, columns):
    first, second = normal(rows, columns), normal(rows, columns, seed=1)

    def merged(tensors, row_wise):
        parameters = NuslerpParameters((0.3, 0.9), row_wise, False)
        return merged_whole("nuslerp", tensors, parameters)

    turned = merged([first.T.contiguous(), second.T.contiguous()], False)
    torch.testing.assert_close(merged([first, second], True), turned.T, rtol=1e-6, atol=1e-7)
