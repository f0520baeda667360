"""Loops: the arithmetic of a merge by the compiled loops in C, on numpy arrays.

What is no bottleneck is numpy: histograms, to which few searches come, and dtypes other than
bfloat16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int32, c_int64, c_uint32, c_void_p
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.kernels.arithmetic import Band, Bracketed, Sum
from merge_ops.kernels.mask_loops import MaskLoops, address, array_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Values

    Floats = NDArray[np.float32]

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # bfloat16 as its bits
_BEYOND = {"F64": np.inf, "F32": np.inf, "F16": 65520}  # magnitudes that become infinite


class _Band(ctypes.Structure):
    _fields_ = (
        ("low", c_uint32), ("high", c_uint32), ("low_ties", c_int64), ("high_ties", c_int64),
        ("factor", c_float), ("cut", c_int32),
    )  # fmt: skip


class Loops(MaskLoops):
    """The compiled loops on arrays; for one CPU, from any thread."""

    def empty(self, shape: Sequence[int]) -> Floats:
        """New values of this shape, with anything in them."""
        return np.empty(shape, dtype=np.float32)

    def zeros_like(self, values: Values) -> Floats:
        """New values of the same shape, all zero."""
        return np.zeros(values.shape, dtype=np.float32)

    def copy(self, values: Values) -> Floats:
        """A contiguous copy of the same shape."""
        return array_of(values).copy()

    def joined(self, parts: Sequence[Values]) -> Floats:
        """Flat values, one behind the other, as new ones."""
        return np.concatenate([array_of(part) for part in parts])

    def at_least(self, values: Values, bound: float) -> Floats:
        """The bound replaces values below it, in their place; contiguous, of any shape."""
        array = array_of(values)
        return np.maximum(array, np.float32(bound), out=array)

    def at_most(self, values: Values, bound: float) -> Floats:
        """The bound replaces values above it, in their place; contiguous, of any shape."""
        array = array_of(values)
        return np.minimum(array, np.float32(bound), out=array)

    def tensor(self, values: Values) -> Tensor:
        """The result is the values as a tensor on the CPU, of the same shape and memory."""
        import torch

        return torch.as_tensor(array_of(values))

    def own(self, values: Values) -> Floats:
        """The result is an array of the same shape, and of the same memory if contiguous."""
        return array_of(values)

    def on_host(self, values: Values) -> Floats:
        """The result is the values as a contiguous array of the same shape."""
        return array_of(values)

    def from_host(self, array: Floats) -> Floats:
        """The result is the array as it is, of any shape."""
        return array

    def staging(self, nbytes: int) -> NDArray[np.uint8]:
        """Memory that files are read into, shape (nbytes,)."""
        return np.empty(nbytes, dtype=np.uint8)

    def widen(
        self,
        stored: NDArray[np.uint8],
        code: str,
        base: Values | None,
        out: Values,
        checked: bool = True,
    ) -> bool:
        """Flat bytes less `base` become `out`, both (n,); returns whether the bytes are finite."""
        if code == "BF16":
            origin = None if base is None else array_of(base)
            bad = self._library.from_bfloat16(
                address(stored), address(origin), address(array_of(out)), out.shape[0]
            )
            return not (bad and checked)
        with np.errstate(over="ignore", invalid="ignore"):
            array_of(out)[:] = stored.view(_DTYPES[code])
        return self.subtract(out, base, checked)

    def subtract(self, values: Values, base: Values | None, checked: bool = True) -> bool:
        """`base` is taken from `values`, both (n,); returns whether all values were finite."""
        array = array_of(values)
        # One cheap sum finds any NaN or infinity; only if it does is it worth looking at each.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = not checked or bool(np.isfinite(array.sum()))
            finite = finite or bool(np.isfinite(array).all())
            if base is not None:
                array -= array_of(base)
        return finite

    def rounded(
        self, values: Values, base: Values | None, code: str
    ) -> tuple[NDArray[np.uint8], bool]:
        """`values` (plus `base`), both (n,), become flat bytes; beside them if they are finite."""
        array = array_of(values).reshape(-1)
        if code == "BF16":
            origin = None if base is None else array_of(base)
            bits = np.empty(len(array), dtype=np.uint16)
            bad = self._library.to_bfloat16(
                address(array), address(origin), address(bits), len(array)
            )
            return bits.view(np.uint8), not bad
        with np.errstate(over="ignore", invalid="ignore"):
            if base is not None:
                array += array_of(base)
            stored = array.astype(_DTYPES[code], copy=False)
            # NaN passes on through both, and is within no bounds.
            least, most = (array.min(), array.max()) if len(array) else (0, 0)
        return stored.view(np.uint8), bool(least > -_BEYOND[code] and most < _BEYOND[code])

    def weighted_sum(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        weights: Sequence[float],
        divisor: float,
        scale: float,
    ) -> Floats:
        """One pass makes Σ wᵢ xᵢ / divisor · scale. Shapes as in `Arithmetic.weighted_sum`."""
        arrays = [array_of(part) for part in parts]
        merged = np.empty(arrays[0].shape, dtype=np.float32)
        self._library.weighted_sum(
            _pointers(arrays), _bands(bands), _floats(weights), len(arrays), merged.size, divisor,
            scale, address(merged),
        )  # fmt: skip
        return merged

    def rounded_sums(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        sums: Sequence[Sum],
        base: Values | None,
    ) -> tuple[list[NDArray[np.uint8]], bool]:
        """Each strip is summed and rounded at once. Shapes as in `Arithmetic.rounded_sums`."""
        arrays = [array_of(part) for part in parts]
        origin = None if base is None else array_of(base)
        outs = [np.empty(arrays[0].size, dtype=np.uint16) for _ in sums]
        bad = self._library.weighted_sums_to_bfloat16(
            _pointers(arrays), _bands(bands), len(arrays), arrays[0].size, len(sums),
            _numbers(sums), address(origin), _pointers(outs),
        )  # fmt: skip
        return [bits.view(np.uint8) for bits in outs], not bad

    def rounded_sums_of_stored(
        self,
        stored: Sequence[NDArray[np.uint16]],
        sums: Sequence[Sum],
        base: NDArray[np.uint16] | None,
    ) -> tuple[list[NDArray[np.uint8]], bool]:
        """No whole part (n,) is made float32; each result is bytes, (2 n,). Raises MemoryError."""
        outs = [np.empty(len(stored[0]), dtype=np.uint16) for _ in sums]
        bad = self._library.sums_of_bfloat16(
            _pointers(stored), address(base), len(stored), len(stored[0]), len(sums),
            _numbers(sums), _pointers(outs),
        )  # fmt: skip
        if bad < 0:
            raise MemoryError
        return [bits.view(np.uint8) for bits in outs], not bad

    def disjoint_merge(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        scale: Sequence[float],
        gain: Sequence[float],
        share: Sequence[float],
        divide_by_at_least: float | None,
        lambda_: float,
    ) -> Floats:
        """One pass elects signs and adds what agrees, (n,) from (n,). Raises MemoryError."""
        arrays = [array_of(part) for part in parts]
        merged = np.empty(arrays[0].shape, dtype=np.float32)
        done = self._library.disjoint_merge(
            _pointers(arrays), _bands(bands), _floats(scale), _floats(gain), _floats(share),
            len(arrays), merged.size, divide_by_at_least is not None, divide_by_at_least or 0.0,
            lambda_, address(merged),
        )  # fmt: skip
        if not done:
            raise MemoryError
        return merged

    def leaf_sums(self, values: Values, other: Values | None, leaf: int) -> NDArray[np.float64]:
        """C adds values · other, or |values|, by leaves. Shapes as in `Arithmetic.leaf_sums`."""
        first, second = array_of(values), None if other is None else array_of(other)
        sums = np.empty(-(-first.size // leaf), dtype=np.float64)
        self._library.leaf_sums(address(first), address(second), first.size, leaf, address(sums))
        return sums

    def keep_band(self, by: Values, band: Band, values: Values | None = None) -> Floats:
        """`values`, or else `by`, are kept where |by| is within the band, else 0; all are (n,)."""
        measured = array_of(by)
        source = measured if values is None else array_of(values)
        kept = np.empty(measured.shape, dtype=np.float32)
        low, high = _bits(band.low, band.high)
        self._library.keep_band(
            address(measured), address(source), measured.size, low, band.low_ties, high,
            band.high_ties, address(kept),
        )  # fmt: skip
        if band.factor != 1:
            kept *= np.float32(band.factor)
        return kept

    def under_brackets(
        self, values: Values, brackets: Sequence[tuple[float, float]]
    ) -> list[Bracketed]:
        """One pass counts |values|, shape (n,), under every bracket."""
        array = array_of(values)
        ends = np.array(brackets, dtype=np.float32).view(np.uint32)
        inside = [np.empty(array.size, dtype=np.float32) for _ in brackets]
        counts = np.empty((len(brackets), 4), dtype=np.int64)
        self._library.under_brackets(
            address(array), array.size, len(inside), address(ends), _pointers(inside),
            address(counts),
        )  # fmt: skip
        return [
            Bracketed(above, at_high, at_low, magnitudes[:found].copy())
            for (above, at_high, at_low, found), magnitudes in zip(
                counts.tolist(), inside, strict=True
            )
        ]

    def histogram(self, values: Values, bits: int, above: int | None) -> NDArray[np.int64]:
        """Numbers in the bits of |values| are counted. Shapes as in `Arithmetic.histogram`."""
        numbers = np.abs(array_of(values)).view(np.uint32)
        upper = numbers >> np.uint32(bits)
        if above is None:
            return np.bincount(upper, minlength=1 << (31 - bits))
        return np.bincount(numbers[upper == above] & ((1 << bits) - 1), minlength=1 << bits)

    def count_equal(self, values: Values, magnitude: float) -> int:
        """The result is how many of |values|, shape (n,), are equal to a float32."""
        return int(np.count_nonzero(np.abs(array_of(values)) == np.float32(magnitude)))

    def order_statistics(self, values: Values, places: Sequence[int]) -> list[float]:
        """The result is what stands at these places of |values|, (n,), in ascending order."""
        magnitudes = np.abs(array_of(values))
        if places:
            magnitudes.partition(sorted(set(places)))
        return magnitudes[list(places)].tolist()

    def variance(self, parts: Sequence[Values]) -> tuple[Floats, int]:
        """Parts, (n,), give the variance of every entry, (n,), and how many are not zero."""
        arrays = [array_of(part) for part in parts]
        spread = np.empty(arrays[0].shape, dtype=np.float32)
        differing = self._library.variance(
            _pointers(arrays), len(arrays), spread.size, address(spread)
        )
        return spread, differing

    def pick_between(self, by: Values, low: float, high: float, parts: Sequence[Values]) -> Floats:
        """`by` and parts, (n,), are picked where `by` is in range, in order: (1 + parts, found)."""
        measured, arrays = array_of(by), [array_of(part) for part in parts]
        if high < low:
            return np.empty((1 + len(arrays), 0), dtype=np.float32)
        picked = np.empty((1 + len(arrays), measured.size), dtype=np.float32)
        found = self._library.pick_between(
            address(measured), *_bits(low, high), _pointers(arrays), len(arrays), measured.size,
            address(picked),
        )  # fmt: skip
        return picked[:, :found].copy()

    def squares_above(
        self, parts: Sequence[Values], by: Values, above: float, leaf: int
    ) -> tuple[list[NDArray[np.float64]], int]:
        """Squares where `by` is larger are added. Shapes as in `Arithmetic.squares_above`."""
        measured, arrays = array_of(by), [array_of(part) for part in parts]
        sums = np.empty((len(arrays), -(-measured.size // leaf)), dtype=np.float64)
        larger = self._library.squares_above(
            _pointers(arrays), len(arrays), address(measured), above, measured.size, leaf,
            address(sums),
        )  # fmt: skip
        return list(sums), larger


def _pointers(arrays: Sequence[NDArray[Any]]) -> ctypes.Array[c_void_p]:
    return (c_void_p * len(arrays))(*map(address, arrays))


def _floats(values: Sequence[float]) -> ctypes.Array[c_float]:
    return (c_float * len(values))(*values)


def _numbers(sums: Sequence[Sum]) -> ctypes.Array[c_float]:
    return _floats([x for weights, divisor, scale in sums for x in (*weights, divisor, scale)])


def _bits(*values: float) -> list[int]:
    return np.array(values, dtype=np.float32).view(np.uint32).tolist()


def _bands(bands: Sequence[Band | None]) -> ctypes.Array[_Band] | None:
    if not any(bands):
        return None
    structures = (_Band * len(bands))()
    for structure, band in zip(structures, bands, strict=True):
        if band is not None:
            structure.low, structure.high = _bits(band.low, band.high)
            structure.low_ties, structure.high_ties = band.low_ties, band.high_ties
            structure.factor, structure.cut = band.factor, 1
    return structures
