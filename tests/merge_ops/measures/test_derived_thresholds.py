"""Thresholds of what follows from the experts together: variances (sce) and claims (pcb)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.measures.measure import LEAF, Block, TensorJob, sample_runs
from merge_ops.methods.pcb import ClaimMeasure, ClaimThreshold, PcbParameters, pcb
from merge_ops.methods.sce import SceParameters, VarianceMeasure, sce, selected_count
from merge_ops.stream.stream import SAMPLE_RUNS
from tests.merges.arithmetics import LOOPS, TORCH, current

pytestmark = pytest.mark.usefixtures("arithmetic")

PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=200)


def blocks_of(tensors, size):
    count = tensors[0].numel()
    return [
        Block(number, start, [each[start : start + size] for each in tensors])
        for number, start in enumerate(range(0, count, size))
    ]


def measured(measure, blocks, sample=None):
    if sample is not None:
        measure.look(sample)
    while measure.wanted:
        measure.absorb([measure.observe(each) for each in blocks])
    parts = [[torch.as_tensor(x) for x in kept(each, measure.at(each, 0))] for each in blocks]
    return torch.cat([torch.stack(part) for part in parts], dim=1)


def kept(block, known):
    """The task vectors with all that is not selected set to zero."""
    if not hasattr(known, "keep"):
        return list(known)
    return [known.keep(current(), each) for each in block.inputs]


def variance(tensors):
    spread, differing = current().variance(tensors)
    return torch.as_tensor(spread), differing


@given(PAIRS, st.floats(0.05, 0.99), st.integers(1, 40), st.booleans())
@settings(deadline=None, max_examples=120)
def test_sce_selects_as_a_stable_sort_of_the_variances(pairs, share, block, sampled):
    tensors = [torch.tensor([float(pair[k]) for pair in pairs]) for k in range(2)]
    job = TensorJob("t", (len(pairs),), ("a", "b"), 0, current())
    measure = VarianceMeasure(job, [SceParameters(share)])
    sample = [each[::3].contiguous() for each in tensors] if sampled else None
    found = measured(measure, blocks_of(tensors, block), sample)
    spread = [((a - b) / 2) ** 2 for a, b in pairs]
    k = selected_count(sum(each > 0 for each in spread), share)
    places = sorted(range(len(pairs)), key=lambda i: (-spread[i], i))[:k]
    mask = torch.zeros(len(pairs))
    mask[places] = 1.0
    assert torch.equal(found, torch.stack(tensors) * mask)


def test_sce_survives_a_sample_without_any_difference():
    """The estimate of k is far off; the histograms find the threshold all the same."""
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(20_000, generator=generator) for _ in range(3)]
    job = TensorJob("t", (20_000,), ("a", "b", "c"), 0, current())
    results = []
    for sample in (None, [torch.zeros(500)] * 3, [each[::40].contiguous() for each in tensors]):
        measure = VarianceMeasure(job, [SceParameters(0.25)])
        results.append(measured(measure, blocks_of(tensors, 3000), sample))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    kept = results[0].abs().sum(dim=0) > 0
    assert int(kept.sum()) == 5000
    spread = variance(tensors)[0]
    assert float(spread[kept].min()) > float(spread[~kept].max())


def test_sce_counts_and_selects_in_one_round_where_half_the_entries_do_not_differ():
    generator = torch.Generator().manual_seed(4)
    common = torch.randn(50_000, generator=generator)
    other = torch.where(torch.arange(50_000) % 2 == 0, common, common + common.flip(0))
    tensors = [common, other]
    measure = VarianceMeasure(
        TensorJob("t", (50_000,), ("a", "b"), 0, current()), [SceParameters(0.3)]
    )
    blocks, rounds = blocks_of(tensors, 7000), 0
    measure.look([torch.cat([each[:5000], each[-5000:]]) for each in tensors])
    while measure.wanted:
        measure.absorb([measure.observe(each) for each in blocks])
        rounds += 1
    assert rounds == 1  # the weights are known with the threshold
    mask = torch.cat([torch.as_tensor(kept(x, measure.at(x, 0))[0]) != 0 for x in blocks])
    assert int(mask.sum()) == 7500


def weights_of(tensors, size, shares=(0.2,), arithmetic=None):
    """The weights for every share, and the rounds, with blocks of `size` elements."""
    count = tensors[0].numel()
    job = TensorJob("t", (count,), tuple("abc"[: len(tensors)]), 0, arithmetic or current())
    measure = VarianceMeasure(job, [SceParameters(share) for share in shares])
    starts, length = sample_runs(count, measure.sample, SAMPLE_RUNS)
    measure.look([torch.cat([each[at : at + length] for at in starts]) for each in tensors])
    blocks, rounds = blocks_of(tensors, size), 0
    while measure.wanted:
        measure.absorb([measure.observe(each) for each in blocks])
        rounds += 1
    selected = [measure.at(blocks[0], coefficient) for coefficient in range(len(shares))]
    return [list(each.weights) for each in selected], rounds


@pytest.mark.parametrize(
    ("fineness", "held", "expected"), [(256, 1 << 24, 1), (256, 500, 5), (1, 5000, 2)]
)
@pytest.mark.parametrize("experts", [2, 3])
def test_the_weights_of_sce_are_the_same_bits_for_any_blocks(
    fineness, held, expected, experts, monkeypatch
):
    """Whether they come with the threshold, or from a round of their own as too much lies near it:

    of different values, which take histograms, or of equal ones.
    """
    generator = torch.Generator().manual_seed(6)
    noises = [torch.randn(200_003, generator=generator) for _ in range(experts)]
    tensors = [(noise * fineness).round() / fineness for noise in noises]
    shares = (0.05, 0.2, 1.0, 1e-9)
    monkeypatch.setattr("merge_ops.methods.sce.INSIDE_LIMIT", held * (experts + 2))
    (weights, rounds), *others = (weights_of(tensors, k * LEAF, shares) for k in (1, 2, 3, 4))
    assert rounds == expected
    assert others == [(weights, rounds)] * 3
    for other in (LOOPS, TORCH):
        assert weights_of(tensors, 2 * LEAF, shares, other) == (weights, rounds)
    spread = variance(tensors)[0]
    for share, found in zip(shares, weights, strict=True):
        k = selected_count(int((spread > 0).sum()), share)
        places = spread.sort(descending=True, stable=True).indices[:k] if share < 1 else ...
        squares = [float((each.double()[places] ** 2).sum()) for each in tensors]
        small = sum(squares) / len(spread) < 1e-6
        exact = [1 / experts if small else each / sum(squares) for each in squares]
        np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_the_variance_of_equal_entries_is_exactly_zero():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    for count in (2, 3, 7):
        assert variance([values] * count)[1] == 0


def test_selected_count_is_rounded_as_in_mergekit():
    # 0.29 · 100 is 28.999… in float64, and 29 in float32
    assert [selected_count(100, share) for share in (0.29, 0.005, 0.3)] == [29, 0, 30]
    assert selected_count(7, 0.9999999999) == 7


def test_sce_scaled_by_a_power_of_two_scales():
    generator = torch.Generator().manual_seed(5)
    tensors = [torch.randn(300, generator=generator) for _ in range(3)]
    parameters = SceParameters(0.4)
    outs = []
    for factor in (1.0, 4.0):
        scaled = [each * factor for each in tensors]
        measure = VarianceMeasure(
            TensorJob("t", (300,), ("a", "b", "c"), 0, current()), [parameters]
        )
        measured(measure, blocks_of(scaled, 300))
        selected = measure.at(Block(0, 0, scaled), 0)
        outs.append(torch.as_tensor(sce(scaled, selected, parameters, current())))
    assert torch.equal(outs[0] * 4, outs[1])


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=200),
    st.floats(0.0, 1.0),
    st.integers(1, 40),
    st.booleans(),
)
@settings(deadline=None, max_examples=120)
def test_the_threshold_of_signed_values_is_that_of_a_sort(numbers, place, block, sampled):
    values = torch.tensor(numbers, dtype=torch.float32)
    k = 1 + int(place * (len(numbers) - 1))
    threshold = ClaimThreshold(current(), k, len(numbers), 1 << 16)
    if sampled:
        threshold.look(values[::3].contiguous())
    while threshold.value is None:
        threshold.absorb(
            [threshold.observe(values[at : at + block]) for at in range(0, len(numbers), block)]
        )
    assert threshold.value == sorted(numbers, reverse=True)[k - 1]


@given(st.integers(2, 300), st.floats(0.05, 1.0))
@settings(deadline=None, max_examples=40)
def test_pcb_of_one_expert_keeps_its_largest_entries_as_they_are(n, density):
    """One expert's claims grow with |δ|; its share cancels. The weakest kept claim counts 0."""
    values = torch.randn(n, generator=torch.Generator().manual_seed(n))
    parameters = PcbParameters((1.0,), (density,), 1.0)
    measure = ClaimMeasure(TensorJob("t", (n,), ("a",), 0, current()), [parameters])
    block = Block(0, 0, [values])
    while measure.wanted:
        measure.absorb([measure.observe(block)])
    out = pcb([values], measure.at(block, 0), parameters, current())
    kept = max(1, n - int((1 - density) * n) - 1)  # where only one is kept it is the largest
    expected = torch.zeros(n)
    places = torch.sort(values.abs(), descending=True, stable=True).indices[:kept]
    expected[places] = values[places]
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0)
