"""Both arithmetics, the loops in C on arrays and torch, give the same bits."""

import ctypes
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merge_ops.kernels import compile as compile_kernels
from merge_ops.kernels.arithmetic import NOTHING, Arithmetic, Band
from merge_ops.kernels.library import library
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import LEAF
from merge_ops.measures.thresholds import Threshold, ThresholdSearch, between, observe_all
from merge_ops.measures.trimmed_blocks import TrimmedBlock
from merge_ops.methods.ties import disjoint_merge
from tests.merges.arithmetics import ARITHMETICS, LOOPS, TORCH, same_bits

LENGTHS = (1, 7, 63, 1024, 1025, LEAF, 2 * LEAF + 77)


def values(count: int, seed: int = 0) -> torch.Tensor:
    """Values as models have them: many zeros, many equal ones, some of them subnormal."""
    made = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.01
    made = made.bfloat16().float()
    made[::5] = 0.0
    made[3::101] = -0.0
    made[4::97] = 1e-41
    return made


def both(work: Callable[[Arithmetic], Any]) -> list[Any]:
    """What `work` gives with either arithmetic."""
    return [work(arithmetic) for arithmetic in ARITHMETICS.values()]


def assert_same_bits(results: Sequence[Any]) -> None:
    first, second = results
    assert same_bits(first, second)


def test_the_loops_were_compiled():
    """`make install` compiles them wherever there is a compiler or a package index."""
    assert library() is not None


def test_loops_of_another_source_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor has this machine's compiler anything to warn of; zig is asked when a wheel is built."""
    for name in (*compile_kernels.SOURCES, *compile_kernels.HEADERS):
        shutil.copy(compile_kernels.FOLDER / name, tmp_path)
    monkeypatch.setattr(compile_kernels, "FOLDER", tmp_path)
    changed = tmp_path / "kernels.h"
    changed.write_bytes(changed.read_bytes() + b"/* changed */\n")
    for made in compile_kernels.compile_kernels(flags=["-Werror"]):
        ctypes.CDLL(str(made))
    library.cache_clear()
    assert library() is not None
    changed.write_bytes(b"/* changed again, not compiled */\n")
    library.cache_clear()
    assert library() is None
    library.cache_clear()


@pytest.mark.parametrize("processor", ["AVX512", "AVX2", "DEFAULT"])
def test_every_processor_was_compiled_for(processor: str):
    """Where the architecture has these names; elsewhere there is one library."""
    expected = processor if compile_kernels.platform.machine() == "x86_64" else "DEFAULT"
    assert compile_kernels.library_file(expected).is_file()


@pytest.mark.parametrize("count", LENGTHS)
def test_sums_over_leaves(count: int):
    a, b = values(count), values(count, 1)
    assert_same_bits(both(lambda by: by.leaf_sums(a, None, LEAF)))
    assert_same_bits(both(lambda by: by.leaf_sums(a, b, LEAF)))
    exact = float((a.double() * b.double()).sum())
    scale = float((a.double() * b.double()).abs().sum())
    assert abs(float(LOOPS.leaf_sums(a, b, LEAF).sum()) - exact) <= 2**-23 * scale


@pytest.mark.parametrize("length", [1, 7, 64, 1000, 4099])
def test_sums_over_rows(length: int):
    rows = values(5 * length).view(5, length)
    assert_same_bits(both(lambda by: by.leaf_sums(rows, rows, length)))


WEIGHTS = [0.3, -0.2, 1.0, 0.7, 0.1]


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("experts", [1, 2, 5])
def test_weighted_sums(count: int, experts: int):
    parts = [values(count, seed) for seed in range(experts)]
    for divisor, scale in ((1, 1), (0.6, 1), (1, 1.3), (0.6, 1.3)):
        merged = WeightedSum(parts, WEIGHTS[:experts], divisor, scale)
        assert_same_bits(both(merged.made))


def test_a_product_is_rounded_before_it_is_added():
    """A fused multiply-add would keep the low bits of (1 + 2⁻²³)², which round away."""
    just_above = 1 + 2.0**-23
    parts = [torch.full((1000,), -(1 + 2.0**-22)), torch.full((1000,), just_above)]
    for arithmetic in ARITHMETICS.values():
        summed = WeightedSum(parts, (1.0, just_above)).made(arithmetic)
        assert not np.asarray(summed).any()


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("experts", [1, 2, 5])
@pytest.mark.parametrize("with_base", [True, False])
def test_sums_in_one_pass_have_the_bits_of_sums_rounded_by_themselves(
    count: int, experts: int, with_base: bool
):
    parts = [values(count, seed) for seed in range(experts)]
    base = values(count, 9) if with_base else None
    weights = WEIGHTS[:experts]
    numbers = [(weights, *scaled) for scaled in ((1, 1), (0.6, 1), (1, 1.3), (0.6, -1.3))]
    numbers.append((weights[::-1], 1, 1))
    whole = [None] * experts
    together = both(lambda by: by.rounded_sums(parts, whole, numbers, base)[0])
    for each, *rounded in zip(numbers, *together, strict=True):
        made = torch.as_tensor(LOOPS.weighted_sum(parts, whole, *each))
        expected = (made if base is None else made + base).to(torch.bfloat16).view(torch.uint8)
        assert all(np.array_equal(found, expected.numpy()) for found in rounded)


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.5), (0.6, 0.4), (0.6, -0.4, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("normalize", [True, False])
def test_disjoint_merges(count, weights, normalize):
    parts = [values(count, seed) for seed in range(len(weights))]
    for lambda_ in (1, 0.7):
        merged = both(
            lambda by, scale=lambda_: disjoint_merge(by, parts, weights, normalize, scale) + 0.0
        )
        assert_same_bits(merged)


def test_a_sum_of_agreeing_weights_that_is_zero_divides_by_one(arithmetic):
    # weights 1 and −1: 2·1 and −3·−1 agree on plus, their weights sum to 0; so 5 stays
    parts = [torch.tensor([2.0, 4.0]), torch.tensor([-3.0, 0.0])]
    merged = disjoint_merge(arithmetic, parts, (1.0, -1.0), True, 1.0)
    assert merged.tolist() == [5.0, 4.0]


def test_a_sum_is_divided(arithmetic):
    summed = WeightedSum([torch.tensor([3.0]), torch.tensor([5.0])], (1.0, 1.0), 2.0)
    assert summed.made(arithmetic).tolist() == [4.0]


def cuts(count: int) -> list[TrimmedBlock]:
    """Parts cut below, above, on both sides with ties at both ends, to nothing, and not at all."""
    parts = [values(count, seed) for seed in range(5)]
    ranked = [each.abs().sort(descending=True).values for each in parts]

    def threshold(part: int, k: int) -> Threshold:
        value = float(ranked[part][min(k, count - 1)])
        above = int((parts[part].abs() > value).sum())
        equal = int((parts[part].abs() == value).sum())
        return Threshold(value, (max(0, min(k - above, equal)),))

    def times(band: Band, factor: float) -> Band:
        return band._replace(factor=factor)

    return [
        TrimmedBlock(parts[0], times(threshold(0, count // 3).band(0), 1.7)),
        TrimmedBlock(parts[1], between(None, threshold(1, count // 50), 0, count)),
        TrimmedBlock(
            parts[2],
            times(between(threshold(2, count // 2), threshold(2, count // 40), 0, count), 0.3),
        ),
        TrimmedBlock(parts[3], NOTHING),
        TrimmedBlock(parts[4]),
    ]


@pytest.mark.parametrize("count", LENGTHS)
def test_sums_of_cut_parts(count: int):
    parts, weights = cuts(count), (0.5, 1.25, -0.3, 2.0, 0.7)
    for part in parts:
        assert_same_bits(both(lambda by, part=part: np.asarray(part.made(by)) + 0.0))
    whole = [part.made(LOOPS) for part in parts]
    for normalize in (False, True):
        merged = both(lambda by, n=normalize: disjoint_merge(by, parts, weights, n, 0.9) + 0.0)
        assert_same_bits(merged)
        assert_same_bits([merged[0], disjoint_merge(LOOPS, whole, weights, normalize, 0.9) + 0.0])
    summed = WeightedSum(parts, weights, 1.5, 0.8)
    merged = both(lambda by: summed.made(by) + 0.0)
    assert_same_bits(merged)
    assert_same_bits([merged[0], WeightedSum(whole, weights, 1.5, 0.8).made(LOOPS) + 0.0])
    values_, bands = [part.values for part in parts], [part.band for part in parts]
    expected = torch.as_tensor(merged[0]).to(torch.bfloat16).view(torch.int16)
    zeros = expected & 0x7FFF == 0  # of either sign: +0.0 above made them all positive
    sums = [summed.numbers]
    for (rounded,) in both(lambda by: by.rounded_sums(values_, bands, sums, None)[0]):
        found = torch.from_numpy(rounded.view(np.int16))
        assert torch.equal(found[~zeros], expected[~zeros])
        assert (found[zeros] & 0x7FFF == 0).all()


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("experts", [2, 3])
def test_variances(count: int, experts: int):
    parts = [values(count, seed) for seed in range(experts)]
    (spread, differing), other = both(lambda by: by.variance(parts))
    assert_same_bits([spread, other[0]])
    assert differing == other[1] == np.count_nonzero(spread)
    low, high = sorted(np.quantile(spread, [0.3, 0.8]).astype(np.float32).tolist())
    assert_same_bits(both(lambda by: by.pick_between(spread, low, high, parts)))
    (sums, above), (more, larger) = both(lambda by: by.squares_above(parts, spread, high, LEAF))
    assert above == larger == np.count_nonzero(spread > np.float32(high))
    assert all(map(same_bits, sums, more))


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 4096), (5, 1001), (2**33 + 3, 77)])
def test_random_masks(start: int, count: int):
    delta, key = values(count), (2**63 + 5, 77)
    assert_same_bits(both(lambda by: by.keep_random(key, start, delta, round(0.3 * 2**32))))


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (3, 5), (4, 1024), (2, 3000), (1, 70_001)])
def test_ranks_in_rows(shape: tuple[int, int]):
    rows = values(shape[0] * shape[1]).view(shape)
    table = np.arange(shape[1], dtype=np.float32)
    assert_same_bits(both(lambda by: by.by_rank(table, rows)))


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_what_lies_under_a_bracket(count, share):
    delta = values(count)
    k = max(1, int(share * count))

    def found(by: Arithmetic) -> Any:
        search = ThresholdSearch(by, k, count, 1 << 20)
        search.look(delta[:: max(1, count // 1000)].contiguous())
        while search.threshold is None:
            search.absorb([search.observe(delta)])
        kept = by.keep_band(delta, search.threshold.band(0))
        assert int((kept != 0).sum()) <= k
        return kept

    assert_same_bits(both(found))


@pytest.mark.parametrize("count", LENGTHS)
def test_several_brackets_in_one_pass(count):
    delta = values(count)

    def found(by: Arithmetic) -> Any:
        searches = [
            ThresholdSearch(by, max(1, int(share * count)), count, 1 << 20) for share in (0.1, 0.5)
        ]
        for each in searches:
            each.look(delta[:: max(1, count // 500)].contiguous())
        for each, seen in zip(searches, observe_all(by, searches, delta), strict=True):
            each.absorb([seen])
            while each.threshold is None:
                each.absorb([each.observe(delta)])
        upper, lower = (each.threshold for each in searches)
        bands = between(lower, upper, 0, count), between(None, upper, 0, count)
        return np.concatenate([np.asarray(by.keep_band(delta, band)) for band in bands]) + 0.0

    assert_same_bits(both(found))


@pytest.mark.parametrize("above", [None, 0x3C00, 0x7F00])
def test_histograms_of_bits(above: int | None):
    delta = values(5000)
    counts = both(lambda by: by.histogram(delta, 15, above))
    assert_same_bits(counts)
    assert counts[0].shape == ((1 << 16) if above is None else (1 << 15),)
    assert counts[0].sum() == 5000 or above is not None


@pytest.mark.parametrize("ties", [0, 1, 3, 100])
def test_ties_at_the_threshold(ties: int):
    delta = torch.tensor([0.5, -1.0, 2.0, 1.0, -0.0, 1.0, -1.0, 3.0] * 300)
    equal = int((delta.abs() == 1.0).sum())
    band = Threshold(1.0, (min(ties, equal),)).band(0)
    assert_same_bits(both(lambda by: by.keep_band(delta, band) + 0.0))


def stored_bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(torch.uint8).numpy()


@pytest.mark.parametrize("code", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("count", LENGTHS)
def test_stored_dtypes_in_and_out(count: int, code: str, arithmetic):
    dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}.get(code)
    stored, base = values(count).to(dtype or torch.float64), values(count, 1)
    out = arithmetic.empty((count,))
    assert arithmetic.widen(stored_bytes(stored), code, None, out) is True
    assert same_bits(out, stored.float())
    assert arithmetic.widen(stored_bytes(stored), code, base, out) is True
    assert same_bits(out, stored.float() - base)
    for bad in (float("nan"), float("inf"), -float("inf")):
        stored[count // 2] = bad
        assert arithmetic.widen(stored_bytes(stored), code, base, out) is False
        assert arithmetic.widen(stored_bytes(stored), code, base, out, checked=False) is True
    full = torch.randn(count, generator=torch.Generator().manual_seed(3))
    full[0] = 3.3e38 * 1.03  # in bfloat16 it rounds up to infinity
    for origin in (None, base):
        expected = (full if origin is None else full + origin).to(stored.dtype)
        rounded, finite = arithmetic.rounded(arithmetic.copy(full), origin, code)
        assert finite == bool(expected.isfinite().all())
        assert np.array_equal(rounded, stored_bytes(expected))


def test_nan_stays_nan_when_it_is_rounded(arithmetic):
    rounded, finite = arithmetic.rounded(torch.full((1001,), float("nan")), None, "BF16")
    assert not finite
    assert bool(torch.from_numpy(rounded).view(torch.bfloat16).isnan().all())


def test_a_large_sum_of_finite_values_is_finite(arithmetic):
    """The quick check adds all up, and looks again where that overflows."""
    large = torch.full((1000,), 3e38)
    assert arithmetic.subtract(large, None) is True
    large[7] = float("nan")
    assert arithmetic.subtract(large, None) is False


def test_values_are_shared_with_tensors():
    array = np.arange(4, dtype=np.float32)
    tensor = LOOPS.tensor(array)
    tensor += 1
    assert array.tolist() == [1, 2, 3, 4]
    assert LOOPS.own(tensor).ctypes.data == array.ctypes.data
    assert TORCH.tensor(tensor) is tensor
