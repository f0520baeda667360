"""Thresholds are those of a stable sort, whatever the data, the blocks and the sample say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.measures import trimming
from merge_ops.measures.measure import Block, TensorJob
from merge_ops.measures.thresholds import ThresholdSearch, kept_count
from merge_ops.measures.trimming import TrimMeasure
from tests.merges.arithmetics import LOOPS, current

pytestmark = pytest.mark.usefixtures("arithmetic")

LIMIT = 1 << 20


def by_sorting(values: torch.Tensor, density: float) -> torch.Tensor:
    """The reference: the k largest magnitudes by a stable descending sort."""
    k = kept_count(density, len(values))
    kept = torch.zeros_like(values)
    places = torch.sort(values.abs(), descending=True, stable=True).indices[:k]
    kept[places] = values[places]
    return kept


def in_blocks(values: torch.Tensor, density: float, block: int, sample: torch.Tensor | None):
    """Trim block by block, as the stream does."""
    job = TensorJob("t", (len(values),), ("e",), 0, current())
    measure = TrimMeasure(job, [[(kept_count(density, len(values)), 0)]], ["none"])
    blocks = [
        Block(number, start, [values[start : start + block]])
        for number, start in enumerate(range(0, len(values), block))
    ]
    if sample is not None:
        measure.look([sample])
    rounds = 0
    while measure.wanted:
        measure.absorb([measure.observe(each) for each in blocks])
        rounds += 1
    trimmed = [measure.at(each, 0)[0].made(current()) for each in blocks]
    return torch.cat([torch.as_tensor(each) for each in trimmed]), rounds


def test_kept_count():
    assert [kept_count(density, 10) for density in (0.01, 0.3, 0.99, 1.0)] == [1, 3, 9, 10]


@given(
    st.lists(st.integers(-6, 6), min_size=1, max_size=300),
    st.floats(0.01, 1.0),
    st.integers(1, 50),
)
@settings(deadline=None, max_examples=150)
def test_equals_a_stable_sort_on_values_full_of_ties(numbers, density, block):
    values = torch.tensor(numbers, dtype=torch.float32)
    trimmed, _ = in_blocks(values, density, block, values[::3])
    assert torch.equal(trimmed, by_sorting(values, density))


@pytest.mark.parametrize("density", [0.001, 0.1, 0.5, 0.9])
def test_equals_a_sort_on_a_large_tensor_in_one_round(density):
    values = torch.randn(300_000, generator=torch.Generator().manual_seed(1))
    trimmed, rounds = in_blocks(values, density, 65_536, values[::20])
    assert torch.equal(trimmed, by_sorting(values, density))
    assert rounds == 1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_misleading_sample_costs_rounds_but_not_correctness(scale):
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(2))
    trimmed, rounds = in_blocks(values, 0.3, 30_000, values[:5000] * scale)
    assert torch.equal(trimmed, by_sorting(values, 0.3))
    assert rounds == 4  # bracket, high bits, low bits, ties


def test_too_many_values_inside_the_bracket_go_to_histograms(monkeypatch):
    monkeypatch.setattr(trimming, "INSIDE_LIMIT", 100)
    values = torch.randn(50_000, generator=torch.Generator().manual_seed(3))
    trimmed, rounds = in_blocks(values, 0.5, 20_000, values[::50])
    assert torch.equal(trimmed, by_sorting(values, 0.5))
    assert rounds == 4


def test_no_sample_at_all_is_exact_too():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(4))
    trimmed, _ = in_blocks(values, 0.2, 256, None)
    assert torch.equal(trimmed, by_sorting(values, 0.2))


def test_mostly_zero_task_vectors():
    values = torch.zeros(10_000)
    values[::100] = torch.arange(100, dtype=torch.float32) - 50
    trimmed, _ = in_blocks(values, 0.5, 1024, values[::7])
    assert torch.equal(trimmed, by_sorting(values, 0.5))


def test_subnormal_magnitudes_are_told_apart():
    tiny = np.float32(1e-45)
    values = torch.from_numpy(np.arange(64, dtype=np.float32) * tiny)
    trimmed, _ = in_blocks(values, 0.25, 16, None)
    assert torch.equal(trimmed, by_sorting(values, 0.25))


def test_the_sample_stays_small():
    assert ThresholdSearch(LOOPS, 10, 155_000_000, LIMIT).sample <= 155_000_000 / 4
    assert ThresholdSearch(LOOPS, 10, 155_000_000, 1 << 24).sample < 2_000_000


def test_no_more_is_held_than_the_limit_and_one_block(arithmetic):
    """Of a block of which all lies within the bracket, whatever the number of blocks."""
    values = torch.randn(40_000, generator=torch.Generator().manual_seed(5))
    search = ThresholdSearch(arithmetic, 20_000, len(values), 2500)
    search.set_bracket(0.0, math.inf)
    held = []
    for start in range(0, len(values), 1000):
        search.take(search.observe(values[start : start + 1000]))
        held.append(search.held)
    assert 2500 < max(held) <= 2500 + 1000
    search.settle()
    assert search.held == 0
    assert search.threshold is None  # too much lay inside: it goes on with histograms


def test_what_is_held_stays_within_the_limit_over_all_experts(monkeypatch):
    """Without a sample all lies within every bracket; eight experts are measured together."""
    monkeypatch.setattr(trimming, "INSIDE_LIMIT", 8000)
    values = torch.randn(20_000, generator=torch.Generator().manual_seed(6))
    job = TensorJob("t", (len(values),), tuple(map(str, range(12))), 0, current())
    measure = TrimMeasure(job, [[(5000, 0)] * 12], ["none"])
    blocks = [Block(k, 500 * k, [values[500 * k : 500 * k + 500]] * 8) for k in range(40)]
    held = []

    def observations():
        for each in blocks:
            yield measure.observe(each)
            held.append(measure.held)

    measure.absorb(observations())
    assert max(held) <= 8000 + 8 * 500
    assert measure.held == 0
