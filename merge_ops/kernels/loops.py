"""The innermost loops of a merge in C, where they were compiled: one pass instead of several.

kernels.c has the loops (kernels_masks.c and kernels_stored.c those that mask_loops.py and
stored_sums.py call), compile.py makes libraries of them when Ronghe is installed. Each
function here takes float32 tensors on the CPU, or arrays (values.py), and says None (or False)
where the libraries are missing, were made from another source, or the tensors are not such: its
caller then does the same arithmetic in torch and numpy, with the same bits. Calls let go of
Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.kernels.values import address, array_of, count_of, empty_like

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Band = tuple[float, int, float, int, float]
"""(low, low ties, high, high ties, factor): see `keep_band`; what is kept is multiplied."""

_SIGNATURES = {
    "from_bfloat16": (c_int, (c_void_p, c_void_p, c_void_p, c_int64)),
    "to_bfloat16": (None, (c_void_p, c_void_p, c_void_p, c_int64)),
    "under_brackets": (
        None,
        (c_void_p, c_int64, c_int64, c_void_p, POINTER(c_void_p), c_void_p),
    ),
    "disjoint_merge": (
        c_int,
        (POINTER(c_void_p), c_void_p, POINTER(c_float), POINTER(c_float), POINTER(c_float), c_int64,
         c_int64, c_int, c_float, c_float, c_void_p),
    ),
    "weighted_sum": (
        None,
        (POINTER(c_void_p), c_void_p, POINTER(c_float), c_int64, c_int64, c_float, c_float,
         c_void_p),
    ),
    "weighted_sums_to_bfloat16": (
        None,
        (POINTER(c_void_p), c_void_p, c_int64, c_int64, c_int64, POINTER(c_float), c_void_p,
         POINTER(c_void_p)),
    ),
    "sums_of_bfloat16": (
        c_int,
        (POINTER(c_void_p), c_void_p, c_int64, c_int64, c_int64, POINTER(c_float),
         POINTER(c_void_p)),
    ),
    "keep_band": (
        None,
        (c_void_p, c_void_p, c_int64, c_uint32, c_int64, c_uint32, c_int64, c_void_p),
    ),
    "squares_above": (
        c_int64,
        (POINTER(c_void_p), c_int64, c_void_p, c_float, c_int64, c_int64, c_void_p),
    ),
    "leaf_sums": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    "variance": (c_int64, (POINTER(c_void_p), c_int64, c_int64, c_void_p)),
    "pick_between": (
        c_int64,
        (c_void_p, c_uint32, c_uint32, POINTER(c_void_p), c_int64, c_int64, c_void_p),
    ),
    "keep": (None, (c_uint64, c_uint64, c_int64, c_int64, c_uint32, c_void_p, c_void_p)),
    "row_ranks": (c_int, (c_void_p, c_int64, c_int64, c_void_p)),
    "decide_by_rank": (
        c_int,
        (c_uint64, c_uint64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p),
    ),
    "apply_decided": (None, (c_void_p, c_void_p, c_int64, c_int64, c_float, c_void_p)),
    "decided_sums": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
}  # fmt: skip


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loops for this processor, or None where they were not compiled from this source."""
    # What compiles comes along.
    from merge_ops.kernels.compile import library_file, processor, source_digest

    file = library_file(processor())
    try:
        found = ctypes.CDLL(str(file))
        found.source_digest.restype = ctypes.c_char_p
        if found.source_digest().decode() != source_digest():
            return None
    except OSError:
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def loops_for(*values: Tensor | None) -> ctypes.CDLL | None:
    """The library, if all values that are given are contiguous float32 on the CPU."""
    return library() if all(each is None or _fits(each) for each in values) else None


def _fits(values: Tensor, dtype: str = "float32") -> bool:
    if str(values.dtype).removeprefix("torch.") != dtype:
        return False
    array = array_of(values)
    if array is not None:
        return array.flags.c_contiguous
    return values.device.type == "cpu" and values.is_contiguous()


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(tensors))(*map(address, tensors))


class _Band(ctypes.Structure):
    _fields_ = (
        ("low", c_uint32), ("high", c_uint32), ("low_ties", c_int64), ("high_ties", c_int64),
        ("factor", c_float), ("cut", c_int32),
    )  # fmt: skip


def _bands(bands: Sequence[Band | None]) -> ctypes.Array[_Band] | None:
    if not any(bands):
        return None
    found = (_Band * len(bands))()
    for place, band in zip(found, bands, strict=True):
        if band is not None:
            low, low_ties, high, high_ties, place.factor = band
            place.low, place.high = np.array([low, high], np.float32).view(np.uint32).tolist()
            place.low_ties, place.high_ties, place.cut = low_ties, high_ties, 1
    return found


def floats(values: Sequence[float]) -> ctypes.Array[c_float]:
    """Numbers as loops in C take them."""
    return (c_float * len(values))(*values)


def from_bfloat16(stored: Tensor, base: Tensor | None, out: Tensor) -> bool | None:
    """`out` = `stored` (bfloat16) as float32, minus `base` if given, in one pass.

    Shapes (n,). Returns whether all stored values are finite; None where nothing was done.
    """
    loops = loops_for(out, base)
    if loops is None:
        return None
    return not loops.from_bfloat16(address(stored), address(base), address(out), count_of(out))


def to_bfloat16(values: Tensor, base: Tensor | None) -> NDArray[np.uint16] | None:
    """The bits of `values` (plus `base` if given) rounded to the nearest bfloat16, shape (n,)."""
    loops = loops_for(values, base)
    if loops is None:
        return None
    out = np.empty(count_of(values), dtype=np.uint16)
    loops.to_bfloat16(address(values), address(base), out.ctypes.data, len(out))
    return out


def under_brackets(
    values: NDArray[np.float32], brackets: Sequence[tuple[float, float]]
) -> list[tuple[int, int, int, NDArray[np.float32]]] | None:
    """For every bracket (low, high), in one pass: what `_Seen` of selection.py holds."""
    loops = library()
    if loops is None or not values.flags.c_contiguous:
        return None
    ends = np.array(brackets, dtype=np.float32).view(np.uint32)
    inside = [np.empty(len(values), dtype=np.float32) for _ in brackets]
    counts = np.empty((len(brackets), 4), dtype=np.int64)
    places = (c_void_p * len(inside))(*(each.ctypes.data for each in inside))
    loops.under_brackets(
        address(values), len(values), len(inside), address(ends), places, counts.ctypes.data
    )
    return [
        (above, at_high, at_low, kept[:found].copy())
        for (above, at_high, at_low, found), kept in zip(counts.tolist(), inside, strict=True)
    ]


def disjoint_merge(
    parts: Sequence[Tensor],
    bands: Sequence[Band | None],
    scale: Sequence[float],
    gain: Sequence[float],
    share: Sequence[float],
    divide_by_at_least: float | None,
    lambda_: float,
) -> Tensor | None:
    """Sign election over `parts[i] * scale[i]`, and the sum of those that agree, times `gain`.

    Of a part only its band counts, where it has one. The sum is divided by the shares of those that
    agree unless `divide_by_at_least` is None; that is the smallest divisor, or where it is not
    positive, one takes the place of zero. See methods/ties.py.
    """
    loops = loops_for(*parts)
    if loops is None:
        return None
    merged = empty_like(parts[0])
    done = loops.disjoint_merge(
        _pointers(parts), _bands(bands), floats(scale), floats(gain), floats(share), len(parts),
        count_of(merged), divide_by_at_least is not None, divide_by_at_least or 0.0, lambda_,
        address(merged),
    )  # fmt: skip
    if not done:
        raise MemoryError
    return merged


def weighted_sum(
    tensors: Sequence[Tensor],
    bands: Sequence[Band | None],
    weights: Sequence[float],
    divisor: float,
    scale: float,
) -> Tensor | None:
    """Σ wᵢ xᵢ / divisor · scale (see combination.py); of a tensor only its band counts."""
    loops = loops_for(*tensors)
    if loops is None:
        return None
    merged = empty_like(tensors[0])
    loops.weighted_sum(
        _pointers(tensors), _bands(bands), floats(weights), len(tensors), count_of(merged),
        divisor, scale, address(merged),
    )  # fmt: skip
    return merged


def weighted_sums_to_bfloat16(
    tensors: Sequence[Tensor],
    bands: Sequence[Band | None],
    sums: Sequence[tuple[Sequence[float], float, float]],
    base: Tensor | None,
) -> list[NDArray[np.uint16]] | None:
    """Several `weighted_sum`s of the same tensors, each through `to_bfloat16`, in one pass.

    `sums` are (weights, divisor, scale); where tensors are cut there is one of them.
    """
    loops = loops_for(*tensors, base)
    if loops is None:
        return None
    count = count_of(tensors[0])
    outs = [np.empty(count, dtype=np.uint16) for _ in sums]
    numbers = [x for weights, divisor, scale in sums for x in (*weights, divisor, scale)]
    places = (c_void_p * len(outs))(*(each.ctypes.data for each in outs))
    loops.weighted_sums_to_bfloat16(
        _pointers(tensors), _bands(bands), len(tensors), count, len(sums), floats(numbers),
        address(base), places,
    )  # fmt: skip
    return outs


def keep_band(
    by: Tensor, low: float, low_ties: int, high: float, high_ties: int, values: Tensor | None = None
) -> Tensor | None:
    """`values`, or else `by`, where low < |by| ≤ high, zero elsewhere; shapes (n,).

    The first `low_ties` of those equal to `low` stay too, the first `high_ties` of those equal to
    `high` do not.
    """
    loops = loops_for(by, values)
    if loops is None:
        return None
    kept = empty_like(by)
    ends = np.array([low, high], dtype=np.float32).view(np.uint32).tolist()
    loops.keep_band(
        address(by), address(by if values is None else values), count_of(by), ends[0], low_ties,
        ends[1], high_ties, address(kept),
    )  # fmt: skip
    return kept


def leaf_sums(values: Tensor, other: Tensor | None, leaf: int) -> NDArray[np.float64] | None:
    """Σ values · other, or Σ |values|, over leaves of so many elements (see measure.py)."""
    loops = loops_for(values, other)
    if loops is None:
        return None
    count = count_of(values)
    sums = np.empty(-(-count // leaf), dtype=np.float64)
    loops.leaf_sums(address(values), address(other), count, leaf, sums.ctypes.data)
    return sums


def squares_above(
    parts: Sequence[Tensor], by: Tensor, above: float, leaf: int
) -> tuple[NDArray[np.float64], int] | None:
    """For every part Σ part² where `by` > `above`, over leaves, shape (parts, leaves).

    Beside it how many these entries are.
    """
    loops = loops_for(by, *parts)
    if loops is None:
        return None
    count = count_of(by)
    sums = np.empty((len(parts), -(-count // leaf)), dtype=np.float64)
    larger = loops.squares_above(
        _pointers(parts), len(parts), address(by), above, count, leaf, sums.ctypes.data
    )
    return sums, larger


def variance(parts: Sequence[Tensor]) -> tuple[Tensor, int] | None:
    """The variance over the parts of every entry, in float64, rounded to float32.

    Beside it how many are not zero.
    """
    loops = loops_for(*parts)
    if loops is None:
        return None
    result = empty_like(parts[0])
    differing = loops.variance(_pointers(parts), len(parts), count_of(result), address(result))
    return result, differing


def pick_between(
    by: Tensor, low: float, high: float, parts: Sequence[Tensor]
) -> NDArray[np.float32] | None:
    """`by` and the parts where 0 ≤ low ≤ `by` ≤ high, in order; shape (1 + parts, found)."""
    loops = loops_for(by, *parts)
    if loops is None:
        return None
    picked = np.empty((1 + len(parts), count_of(by)), dtype=np.float32)
    ends = np.array([low, high], dtype=np.float32).view(np.uint32).tolist()
    found = loops.pick_between(
        address(by), *ends, _pointers(parts), len(parts), count_of(by), address(picked)
    )
    return picked[:, :found].copy()
