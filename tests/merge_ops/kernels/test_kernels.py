"""The compiled loops and their counterparts in torch and numpy give the same bits."""

import ctypes
import shutil
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from merge_ops.kernels import compile as compile_kernels
from merge_ops.kernels import loops as kernels
from merge_ops.measures.combination import WeightedSum, grouped, sums_as_bfloat16
from merge_ops.measures.cuts import Cut
from merge_ops.measures.measure import LEAF, leaf_sums
from merge_ops.measures.randomness import keep
from merge_ops.measures.rows import row_ranks
from merge_ops.measures.selection import Selection, Threshold, keep_between, observe_all
from merge_ops.measures.variances import variance
from merge_ops.methods.ties import disjoint_merge
from merge_ops.stream.block_reader import BlockReader
from merge_ops.stream.device import open_device

LENGTHS = (1, 7, 63, 1024, 1025, LEAF, 2 * LEAF + 77)


def values(count: int, seed: int = 0) -> torch.Tensor:
    """Values as models have them: many zeros, many equal ones, some of them subnormal."""
    made = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.01
    made = made.bfloat16().float()
    made[::5] = 0.0
    made[3::101] = -0.0
    made[4::97] = 1e-41
    return made


def both(monkeypatch: pytest.MonkeyPatch, work: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
    """What `work` gives with the compiled loops and without them."""
    compiled = work()
    with monkeypatch.context() as without:
        without.setattr(kernels, "library", lambda: None)
        return [compiled, work()]


def assert_same_bits(results: Sequence[torch.Tensor]) -> None:
    first, second = (each.contiguous().view(-1).view(torch.uint8) for each in results)
    assert torch.equal(first, second)


def test_the_loops_were_compiled():
    """`make install` compiles them wherever there is a compiler or a package index."""
    assert kernels.library() is not None


def test_loops_of_another_source_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in (*compile_kernels.SOURCES, *compile_kernels.HEADERS):
        shutil.copy(compile_kernels.FOLDER / name, tmp_path)
    monkeypatch.setattr(compile_kernels, "FOLDER", tmp_path)
    changed = tmp_path / "kernels.h"
    changed.write_bytes(changed.read_bytes() + b"/* changed */\n")
    for made in compile_kernels.compile_kernels():
        ctypes.CDLL(str(made))
    kernels.library.cache_clear()
    assert kernels.library() is not None
    changed.write_bytes(b"/* changed again, not compiled */\n")
    kernels.library.cache_clear()
    assert kernels.library() is None
    kernels.library.cache_clear()


@pytest.mark.parametrize("processor", ["AVX512", "AVX2", "DEFAULT"])
def test_every_processor_was_compiled_for(processor: str):
    """Where the architecture has these names; elsewhere there is one library."""
    expected = processor if compile_kernels.platform.machine() == "x86_64" else "DEFAULT"
    assert compile_kernels.library_file(expected).is_file()


@pytest.mark.parametrize("count", LENGTHS)
def test_sums_over_leaves(count: int, monkeypatch: pytest.MonkeyPatch):
    a, b = values(count), values(count, 1)
    assert_same_bits(both(monkeypatch, lambda: torch.from_numpy(leaf_sums(a))))
    assert_same_bits(both(monkeypatch, lambda: torch.from_numpy(leaf_sums(a, b))))
    exact = float((a.double() * b.double()).sum())
    scale = float((a.double() * b.double()).abs().sum())
    assert abs(float(leaf_sums(a, b).sum()) - exact) <= 2**-23 * scale


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("experts", [1, 2, 5])
def test_weighted_sums(count: int, experts: int, monkeypatch: pytest.MonkeyPatch):
    parts = [values(count, seed) for seed in range(experts)]
    weights = [0.3, -0.2, 1.0, 0.7, 0.1][:experts]
    for divisor, scale in ((1, 1), (0.6, 1), (1, 1.3), (0.6, 1.3)):
        assert_same_bits(
            both(monkeypatch, lambda d=divisor, s=scale: WeightedSum(parts, weights, d, s).made())
        )


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("experts", [1, 2, 5])
@pytest.mark.parametrize("with_base", [True, False])
def test_sums_in_one_pass_have_the_bits_of_sums_rounded_by_themselves(
    count: int, experts: int, with_base: bool
):
    parts = [values(count, seed) for seed in range(experts)]
    base = values(count, 9) if with_base else None
    weights = [0.3, -0.2, 1.0, 0.7, 0.1][:experts]
    scaled = ((1, 1), (0.6, 1), (1, 1.3), (0.6, -1.3))
    sums = [WeightedSum(parts, weights, divisor, scale) for divisor, scale in scaled]
    sums.append(WeightedSum(parts, weights[::-1]))
    bits = sums_as_bfloat16(sums, base)
    assert bits is not None
    for each, found in zip(sums, bits, strict=True):
        expected = each.made() if base is None else each.made() + base
        rounded = expected.to(torch.bfloat16).view(torch.int16)
        assert torch.equal(rounded, torch.from_numpy(found.view(np.int16)))


def test_sums_of_the_inputs_go_together():
    inputs = [values(8, seed) for seed in range(2)]
    whole = [WeightedSum(inputs, (1.0, scale)) for scale in (1.0, 2.0, 3.0)]
    cut = WeightedSum((Cut(inputs[0], 0, nothing=True), inputs[1]), (1.0, 1.0))
    others = [
        WeightedSum(inputs[:1], (1.0,)),
        cut,
        WeightedSum(inputs[::-1], (1.0, 1.0)),
        values(8),
    ]
    results = [*whole[:2], *others, whole[2]]
    assert [[id(each) for each in group] for group in grouped(results, inputs)] == [
        [id(each) for each in group]
        for group in ([*whole[:2]], *([each] for each in others), whole[2:])
    ]


def test_of_other_results_two_are_held_at_a_time():
    inputs, alive = [values(8)], []

    def results():
        for seed in range(5):
            masked = values(8, seed)
            alive.append(weakref.ref(masked))
            assert sum(each() is not None for each in alive) <= 2
            yield WeightedSum([masked], [1.0])

    assert len(BlockReader(LEAF, open_device("cpu")).encode(results(), inputs, None, "BF16")) == 5


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.5), (0.6, 0.4), (0.6, -0.4, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("normalize", [True, False])
def test_disjoint_merges(count, weights, normalize, monkeypatch: pytest.MonkeyPatch):
    parts = [values(count, seed) for seed in range(len(weights))]
    for lambda_ in (1, 0.7):
        assert_same_bits(
            both(
                monkeypatch,
                lambda scale=lambda_: disjoint_merge(parts, weights, normalize, scale) + 0.0,
            )
        )


def cuts(count: int) -> list[Cut]:
    """Parts cut below, above, on both sides with ties at both ends, to nothing, and not at all."""
    parts = [values(count, seed) for seed in range(5)]
    ranked = [each.abs().sort(descending=True).values for each in parts]

    def threshold(part: int, k: int) -> Threshold:
        value = float(ranked[part][min(k, count - 1)])
        above = int((parts[part].abs() > value).sum())
        equal = int((parts[part].abs() == value).sum())
        return Threshold(value, (max(0, min(k - above, equal)),), (equal,))

    return [
        Cut(parts[0], 0, threshold(0, count // 3), factor=1.7),
        Cut(parts[1], 0, None, threshold(1, count // 50)),
        Cut(parts[2], 0, threshold(2, count // 2), threshold(2, count // 40), factor=0.3),
        Cut(parts[3], 0, nothing=True),
        Cut(parts[4], 0),
    ]


@pytest.mark.parametrize("count", LENGTHS)
def test_sums_of_cut_parts(count: int, monkeypatch: pytest.MonkeyPatch):
    parts, weights = cuts(count), (0.5, 1.25, -0.3, 2.0, 0.7)
    whole = [each.made() for each in parts]
    for normalize in (False, True):
        merged = both(monkeypatch, lambda n=normalize: disjoint_merge(parts, weights, n, 0.9) + 0.0)
        assert_same_bits(merged)
        assert_same_bits([merged[0], disjoint_merge(whole, weights, normalize, 0.9) + 0.0])
    merged = both(monkeypatch, lambda: WeightedSum(parts, weights, 1.5, 0.8).made() + 0.0)
    assert_same_bits(merged)
    assert_same_bits([merged[0], WeightedSum(whole, weights, 1.5, 0.8).made() + 0.0])
    bits = sums_as_bfloat16([WeightedSum(parts, weights, 1.5, 0.8)], None)
    assert bits is not None
    expected = merged[0].to(torch.bfloat16).view(torch.int16)
    zeros = expected & 0x7FFF == 0  # of either sign: +0.0 above made them all positive
    found = torch.from_numpy(bits[0].view(np.int16))
    assert torch.equal(found[~zeros], expected[~zeros])
    assert (found[zeros] & 0x7FFF == 0).all()


@pytest.mark.parametrize("count", LENGTHS)
def test_variances(count: int, monkeypatch: pytest.MonkeyPatch):
    parts = [values(count, seed) for seed in range(3)]
    assert_same_bits(both(monkeypatch, lambda: variance(parts)[0]))
    assert variance(parts)[1] == np.count_nonzero(variance(parts)[0].numpy())


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 4096), (5, 1001), (2**33 + 3, 77)])
def test_random_masks(start: int, count: int, monkeypatch: pytest.MonkeyPatch):
    delta, key = values(count), (2**63 + 5, 77)
    assert_same_bits(both(monkeypatch, lambda: keep(key, start, delta, 0.3)))


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (3, 5), (4, 1024), (2, 3000), (1, 70_001)])
def test_ranks_in_rows(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    rows = values(shape[0] * shape[1]).view(shape)
    assert_same_bits(both(monkeypatch, lambda: row_ranks(rows)))


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_what_lies_under_a_bracket(count, share, monkeypatch: pytest.MonkeyPatch):
    delta = values(count)
    k = max(1, int(share * count))

    def found() -> torch.Tensor:
        selection = Selection(k, count, 1 << 20)
        selection.look(delta[:: max(1, count // 1000)].numpy())
        while selection.threshold is None:
            selection.absorb([selection.observe(delta.numpy())])
        kept = selection.threshold.apply(delta, 0)
        assert int((kept != 0).sum()) <= k
        return kept

    assert_same_bits(both(monkeypatch, found))


@pytest.mark.parametrize("count", LENGTHS)
def test_several_brackets_in_one_pass(count, monkeypatch: pytest.MonkeyPatch):
    delta = values(count).numpy()

    def found() -> torch.Tensor:
        selections = [Selection(max(1, int(share * count)), count, 1 << 20) for share in (0.1, 0.5)]
        for each in selections:
            each.look(delta[:: max(1, count // 500)])
        for each, seen in zip(selections, observe_all(selections, delta), strict=True):
            each.absorb([seen])
            while each.threshold is None:
                each.absorb([each.observe(delta)])
        upper, lower = (each.threshold for each in selections)
        assert upper is not None
        kept = keep_between(torch.from_numpy(delta), 0, lower, upper)
        return torch.cat([kept, keep_between(torch.from_numpy(delta), 0, None, upper)]) + 0.0

    assert_same_bits(both(monkeypatch, found))


@pytest.mark.parametrize("ties", [0, 1, 3, 100])
def test_ties_at_the_threshold(ties: int, monkeypatch: pytest.MonkeyPatch):
    delta = torch.tensor([0.5, -1.0, 2.0, 1.0, -0.0, 1.0, -1.0, 3.0] * 300)
    equal = int((delta.abs() == 1.0).sum())
    threshold = Threshold(1.0, (min(ties, equal),), (equal,))
    assert_same_bits(both(monkeypatch, lambda: threshold.apply(delta, 0) + 0.0))


@pytest.mark.parametrize("count", LENGTHS)
def test_bfloat16_in_and_out(count: int, monkeypatch: pytest.MonkeyPatch):
    stored, base, out = values(count).bfloat16(), values(count, 1), torch.empty(count)
    assert kernels.from_bfloat16(stored, None, out) is True
    assert_same_bits([out, stored.float()])
    assert kernels.from_bfloat16(stored, base, out) is True
    assert_same_bits([out, stored.float() - base])
    for bad in (float("nan"), float("inf"), -float("inf")):
        stored[count // 2] = bad
        assert kernels.from_bfloat16(stored, base, out) is False
    reader = BlockReader(LEAF, open_device("cpu"))
    full = torch.randn(count, generator=torch.Generator().manual_seed(3))
    full[0] = 3.3e38 * 1.03  # rounds up to infinity
    for added in (None, base):
        assert_same_bits(
            both(
                monkeypatch,
                lambda b=added: torch.from_numpy(reader.encode([full.clone()], [], b, "BF16")[0]),
            )
        )
    bits = kernels.to_bfloat16(torch.full((count,), float("nan")), None)
    assert bits is not None
    assert bool(torch.from_numpy(bits).view(torch.bfloat16).isnan().all())
