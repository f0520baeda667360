"""Results that are not finite: found as they are rounded, told by tensor, coefficient and value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from merge_ops.errors import NonFiniteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
# From these magnitudes on a float32 is rounded to infinity.
_BEYOND = {"F16": 65520.0, "BF16": float.fromhex("0x1.ffp127")}
_LARGEST = {"F16": "65504", "BF16": "3.39e38"}
_MAGNITUDES = {
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
    "F32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "F64": (np.uint64, (1 << 63) - 1, 0x7FF << 52),
}  # their bits, and those from which on a magnitude is infinite or NaN


class NotFinite(Exception):
    """A rounded block holds NaN or infinity; whoever knows its tensor says which."""


def holds_only_finite(stored: NDArray[np.uint8], code: str) -> bool:
    """Return whether flat bytes of a safetensors float dtype are all finite; True for others."""
    if code not in _MAGNITUDES or not len(stored):
        return True
    kind, magnitude, infinite = _MAGNITUDES[code]
    return int((stored.view(kind) & kind(magnitude)).max()) < infinite


def overflow_error(
    tensor: str, coefficient: str, start: int, values: NDArray[np.float32], code: str
) -> NonFiniteError | None:
    """Return the error that names the first of `values`, (n,), that `code` cannot hold.

    None where it can hold all. `start` is the first element's place in the tensor, `coefficient`
    is empty where the tensor is the same in all.
    """
    with np.errstate(invalid="ignore"):
        (bad,) = np.nonzero(~(np.abs(values) < _BEYOND.get(code, np.inf)))
    if not len(bad):
        return None
    value = float(values[bad[0]])
    of = f" of coefficient '{coefficient}'" if coefficient else ""
    where = f"tensor '{tensor}'{of}: element {start + int(bad[0])} becomes {value:g}"
    if np.isfinite(value):
        wider = "`dtype: bfloat16` or `dtype: float32`" if code == "F16" else "`dtype: float32`"
        problem = f"and {_NAMES[code]} holds at most {_LARGEST[code]}; choose {wider}"
    else:
        problem = "which float32, that merges are computed in, cannot hold; the weights, lambda or"
        problem += " what else scales the models there is too large"
    return NonFiniteError(f"{where}, {problem}. Nothing was written")
