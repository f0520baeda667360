"""The innermost loops of a merge in C, where they were compiled: one pass instead of several.

kernels.c has the loops, compile_kernels.py makes libraries of them when Ronghe is installed. Each
function here takes float32 tensors on the CPU, or arrays (values.py), and says None (or False)
where the libraries are missing, were made from another source, or the tensors are not such: its
caller then does the same arithmetic in torch and numpy, with the same bits. Calls let go of
Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int, c_int64, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.values import address, array_of, count_of, empty_like

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_SIGNATURES = {
    "from_bfloat16": (c_int, (c_void_p, c_void_p, c_void_p, c_int64)),
    "to_bfloat16": (None, (c_void_p, c_void_p, c_void_p, c_int64)),
    "under_brackets": (
        None,
        (c_void_p, c_int64, c_int64, c_void_p, POINTER(c_void_p), c_void_p),
    ),
    "disjoint_merge": (
        None,
        (POINTER(c_void_p), POINTER(c_float), POINTER(c_float), POINTER(c_float), c_int64, c_int64,
         c_int, c_float, c_float, c_void_p),
    ),
    "weighted_sum": (
        None,
        (POINTER(c_void_p), POINTER(c_float), c_int64, c_int64, c_float, c_float, c_void_p),
    ),
    "keep_band": (None, (c_void_p, c_int64, c_uint32, c_int64, c_uint32, c_int64, c_void_p)),
    "leaf_sums": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    "variance": (None, (POINTER(c_void_p), c_int64, c_int64, c_void_p)),
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
    from merge_ops.compile_kernels import library_file, processor, source_digest

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


def _for(*values: Tensor | None) -> ctypes.CDLL | None:
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


def _floats(values: Sequence[float]) -> ctypes.Array[c_float]:
    return (c_float * len(values))(*values)


def from_bfloat16(stored: Tensor, base: Tensor | None, out: Tensor) -> bool | None:
    """`out` = `stored` (bfloat16) as float32, minus `base` if given, in one pass.

    Shapes (n,). Returns whether all stored values are finite; None where nothing was done.
    """
    loops = _for(out, base)
    if loops is None:
        return None
    return not loops.from_bfloat16(address(stored), address(base), address(out), count_of(out))


def to_bfloat16(values: Tensor, base: Tensor | None) -> NDArray[np.uint16] | None:
    """The bits of `values` (plus `base` if given) rounded to the nearest bfloat16, shape (n,)."""
    loops = _for(values, base)
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
    scale: Sequence[float],
    gain: Sequence[float],
    share: Sequence[float],
    divide_by_at_least: float | None,
    lambda_: float,
) -> Tensor | None:
    """Sign election over `parts[i] * scale[i]`, and the sum of those that agree, times `gain`.

    It is divided by the shares of those that agree unless `divide_by_at_least` is None; that is the
    smallest divisor, or where it is not positive, one takes the place of zero. See methods/ties.py.
    """
    loops = _for(*parts)
    if loops is None:
        return None
    merged = empty_like(parts[0])
    loops.disjoint_merge(
        _pointers(parts), _floats(scale), _floats(gain), _floats(share), len(parts),
        count_of(merged), divide_by_at_least is not None, divide_by_at_least or 0.0, lambda_,
        address(merged),
    )  # fmt: skip
    return merged


def weighted_sum(
    tensors: Sequence[Tensor], weights: Sequence[float], divisor: float, scale: float
) -> Tensor | None:
    """Σ wᵢ xᵢ / divisor · scale (see combination.py)."""
    loops = _for(*tensors)
    if loops is None:
        return None
    merged = empty_like(tensors[0])
    loops.weighted_sum(
        _pointers(tensors), _floats(weights), len(tensors), count_of(merged), divisor, scale,
        address(merged),
    )  # fmt: skip
    return merged


def keep_band(
    values: Tensor, low: float, low_ties: int, high: float, high_ties: int
) -> Tensor | None:
    """Zero but for low < |values| ≤ high, shape (n,).

    The first `low_ties` of those equal to `low` stay too, the first `high_ties` of those equal to
    `high` do not.
    """
    loops = _for(values)
    if loops is None:
        return None
    kept = empty_like(values)
    ends = np.array([low, high], dtype=np.float32).view(np.uint32).tolist()
    loops.keep_band(
        address(values), count_of(values), ends[0], low_ties, ends[1], high_ties, address(kept)
    )
    return kept


def leaf_sums(values: Tensor, other: Tensor | None, leaf: int) -> NDArray[np.float64] | None:
    """Σ values · other, or Σ |values|, over leaves of so many elements (see measure.py)."""
    loops = _for(values, other)
    if loops is None:
        return None
    count = count_of(values)
    sums = np.empty(-(-count // leaf), dtype=np.float64)
    loops.leaf_sums(address(values), address(other), count, leaf, sums.ctypes.data)
    return sums


def variance(parts: Sequence[Tensor]) -> Tensor | None:
    """The variance over the parts of every entry, in float64, rounded to float32."""
    loops = _for(*parts)
    if loops is None:
        return None
    result = empty_like(parts[0])
    loops.variance(_pointers(parts), len(parts), count_of(result), address(result))
    return result


def keep(key: tuple[int, int], start: int, values: Tensor, threshold: int) -> Tensor | None:
    """`values` times their random mask (see randomness.py)."""
    loops = _for(values)
    if loops is None:
        return None
    kept = empty_like(values)
    loops.keep(*key, start, count_of(values), threshold, address(values), address(kept))
    return kept


def row_ranks(values: Tensor, ranks: Tensor) -> bool:
    """Fills `ranks` (int32) with the rank of every |value| in its row; shapes (rows, n)."""
    loops = _for(values)
    return loops is not None and bool(
        loops.row_ranks(address(values), *values.shape, address(ranks))
    )


def decide_by_rank(
    key: tuple[int, int], start: int, values: Tensor, thresholds: NDArray[np.uint32]
) -> NDArray[np.uint8] | None:
    """One bit for each entry of rows (rows, n): (rows, ⌈n / 8⌉); see rank_masks.py."""
    loops = _for(values)
    if loops is None:
        return None
    rows, length = values.shape
    decided = np.empty((rows, -(-length // 8)), dtype=np.uint8)
    done = loops.decide_by_rank(
        *key, start, address(values), rows, length, address(thresholds), address(decided)
    )
    return decided if done else None


def apply_decided(values: Tensor, decided: NDArray[np.uint8], factor: float) -> Tensor | None:
    """`values`, shape (rows, n), times what `decide_by_rank` decided, times the factor."""
    loops = _for(values)
    if loops is None:
        return None
    kept = empty_like(values)
    loops.apply_decided(address(values), address(decided), *values.shape, factor, address(kept))
    return kept


def decided_sums(values: Tensor, decided: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Σ |values · decided| of every row, shape (rows,), in the order of `leaf_sums`."""
    loops = _for(values)
    if loops is None:
        return None
    sums = np.empty(values.shape[0], dtype=np.float64)
    loops.decided_sums(address(values), address(decided), *values.shape, address(sums))
    return sums
