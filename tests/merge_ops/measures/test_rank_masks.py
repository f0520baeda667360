"""Masks by rank: the loops in C rank only what they must, and decide as full ranks do."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.measures.measure import LEAF, Block, TensorJob
from merge_ops.measures.randomness import stream_key, thresholds
from merge_ops.measures.rows import row_sums
from merge_ops.methods import della
from merge_ops.methods.della import (
    DellaLinearParameters,
    PruneMeasure,
    bytes_of_masks,
    keep_chances,
)
from tests.merges import philox
from tests.merges.arithmetics import LOOPS, TORCH, current, same_bits

pytestmark = pytest.mark.usefixtures("arithmetic")

KEY = stream_key(7, "model.layers.0.mlp.up_proj.weight", "herbs")
LENGTHS = (1, 2, 3, 7, 8, 63, 64, 65, 896, 1024, 1025, 4864, 70_001)


def noise(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, length, generator=torch.Generator().manual_seed(seed)) * 0.001


def bfloat16_differences(rows: int, length: int) -> torch.Tensor:
    """What the fine-tuning of a bfloat16 model leaves: some hundred magnitudes, many zeros."""
    base = (noise(rows, length, 1) * 20).bfloat16()
    return (base.float() + noise(rows, length)).bfloat16().float() - base.float()


def one_magnitude(rows: int, length: int) -> torch.Tensor:
    return noise(rows, length).sign() * 0.25


def subnormal(rows: int, length: int) -> torch.Tensor:
    return noise(rows, length) * 1e-37


def crowded(rows: int, length: int) -> torch.Tensor:
    """All different, yet so near each other that they share one bin: these are ranked after all."""
    return noise(rows, length) * 1e-4 + 1


def far_apart(rows: int, length: int) -> torch.Tensor:
    """Most lie far below a few: the bins are about the geometric mean."""
    made = noise(rows, length) * torch.exp(12 * noise(rows, length, 2) * 1000)
    made[:, ::17] = 3e38
    return made


ROWS: dict[str, Callable[[int, int], torch.Tensor]] = {
    "noise": noise,
    "bfloat16": bfloat16_differences,
    "zeros": lambda rows, length: noise(rows, length) * 0.0,
    "one magnitude": one_magnitude,
    "two": lambda rows, length: one_magnitude(rows, length) + 0.125,
    "subnormal": subnormal,
    "crowded": crowded,
    "far apart": far_apart,
    "rising": lambda rows, length: torch.arange(1.0, rows * length + 1).view(rows, length),
}


def decide_by_rank(values: torch.Tensor, start: int, chances) -> np.ndarray:
    return np.asarray(current().decide_by_rank(KEY, start, values, thresholds(chances)))


def by_full_ranks(values: torch.Tensor, start: int, chances) -> np.ndarray:
    mask = philox.mask_by_rank(KEY, start, values.numpy(), chances)
    return np.packbits(mask != 0, axis=1, bitorder="little")


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ROWS)
def test_the_loops_decide_as_full_ranks_do(kind: str, length: int):
    rows = max(1, min(40, 20_000 // length))
    values = ROWS[kind](rows, length)
    for density, epsilon in ((0.5, 0.2), (0.1, 0.0999), (0.5, 0.0), (0.7, 1e-6)):
        chances = keep_chances(density, epsilon, length)
        decided = decide_by_rank(values, 5 * length, chances)
        assert decided.shape == (rows, -(-length // 8))
        assert np.array_equal(decided, by_full_ranks(values, 5 * length, chances))


magnitudes = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 1e-41, -1e-41, 3e38]),
    st.floats(-1, 1, width=32, allow_subnormal=True),
)


@given(st.lists(magnitudes, min_size=1, max_size=300), st.integers(0, 2**40), st.floats(0, 0.49))
@settings(deadline=None, max_examples=200)
def test_any_row_is_decided_as_full_ranks_do(row, start, epsilon):
    values = torch.tensor([row, row[::-1]], dtype=torch.float32)
    chances = keep_chances(0.5, epsilon, len(row))
    decided = decide_by_rank(values, start, chances)
    assert np.array_equal(decided, by_full_ranks(values, start, chances))


def test_equal_magnitudes_are_decided_by_their_index():
    """In a row of zeros the chance rises with the index: from one in ten to nine in ten."""
    zeros = torch.zeros(4000, 64)
    decided = decide_by_rank(zeros, 0, keep_chances(0.5, 0.4, 64))
    kept = np.unpackbits(decided, axis=1, bitorder="little").mean(axis=0)
    np.testing.assert_allclose(kept, np.linspace(0.1, 0.9, 64), atol=0.04)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_was_decided_is_kept_and_summed(length: int):
    values = bfloat16_differences(3, length)
    limits = thresholds(keep_chances(0.5, 0.2, length))
    results = []
    for arithmetic in (LOOPS, TORCH):
        decided = arithmetic.decide_by_rank(KEY, 0, values, limits)
        sums = row_sums(arithmetic, values), arithmetic.decided_sums(values, decided)
        results.append([arithmetic.apply_decided(values, decided, 1.7), *sums])
    assert all(map(same_bits, *results))
    packed = decide_by_rank(values, 0, keep_chances(0.5, 0.2, length))
    kept = np.unpackbits(packed, axis=1, count=length, bitorder="little")
    expected = values.double().abs().numpy()
    np.testing.assert_allclose(results[0][1], expected.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(results[0][2], (expected * kept).sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize("held", [True, False])
def test_masks_are_made_again_where_they_are_not_held(held: bool, monkeypatch: pytest.MonkeyPatch):
    """In bounded memory, and with the same result."""
    rows, length = 256, 512
    assert bytes_of_masks(rows, length) == rows * length // 8
    monkeypatch.setattr(della, "HELD", 2 * bytes_of_masks(rows, length) - (not held))
    parameters = DellaLinearParameters((1, 1), (0.5, 0.3), (0.2, 0.1), False, "l1_norm", 1)
    job = TensorJob("t", (rows, length), ("a", "b"), 3, current())
    measure = PruneMeasure(job, [parameters])
    experts = [bfloat16_differences(rows, length), noise(rows, length)]
    blocks = [
        Block(
            index, start, [each.view(-1)[start : start + LEAF].view(-1, length) for each in experts]
        )
        for index, start in enumerate(range(0, rows * length, LEAF))
    ]
    seen = [measure.observe(block) for block in blocks]
    assert [each.decided is not None for block in seen for each in block] == [held] * 4
    measure.absorb(seen)
    assert not measure.wanted
    for block in blocks:
        merged = measure.at(Block(block.index, block.start, block.inputs), 0)
        for expert, (density, epsilon) in enumerate(((0.5, 0.2), (0.3, 0.1))):
            key = stream_key(3, "t", "ab"[expert])
            chances = keep_chances(density, epsilon, length)
            delta = block.inputs[expert].numpy()
            kept = philox.mask_by_rank(key, block.start, delta, chances)
            assert np.array_equal(np.asarray(merged[expert]) != 0, (kept * delta) != 0)
