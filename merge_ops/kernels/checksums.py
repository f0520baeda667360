"""Checksums of bytes by pieces: fast enough to check all that a merge reads (kernels_checksums.c).

They tell damage and changes, whether of one bit or of all; against someone who looks for other
bytes with the same checksum they are none, and are always taken beside a BLAKE3 of the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from merge_ops.kernels.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.uint64]

_FACTORS = 0x9E3779B1, 0x85EBCA77
_LOW = (1 << 32) - 1


def checksums(data: memoryview, piece: int) -> Numbers:
    """Return the checksum of each piece of `piece` bytes, the last one shorter: shape (pieces,)."""
    if not len(data):
        return np.empty(0, dtype=np.uint64)
    array = np.frombuffer(data, dtype=np.uint8)
    sums = np.empty(-(-len(array) // piece), dtype=np.uint64)
    compiled = library()
    if compiled is None:
        for number in range(len(sums)):
            sums[number] = _checksum(array[number * piece : (number + 1) * piece])
    else:
        compiled.checksums(array.ctypes.data, len(array), piece, sums.ctypes.data)
    return sums


def _checksum(piece: NDArray[np.uint8]) -> int:
    """What the loop in C gives, slower; a piece takes some memory more."""
    filled = np.zeros(-(-len(piece) // 8) * 8, dtype=np.uint8)
    filled[: len(piece)] = piece
    words = cast("Numbers", filled.view("<u8")).astype(np.uint64, copy=False)
    places = np.arange(len(words), dtype=np.uint64)
    low = (words + places * np.uint64(_FACTORS[0])) & np.uint64(_LOW)
    high = ((words >> np.uint64(32)) + places * np.uint64(_FACTORS[1]) + np.uint64(1)) & np.uint64(
        _LOW
    )
    total = int(words.sum(dtype=np.uint64))
    turned = (total << 31 | total >> 33) & ((1 << 64) - 1)
    return int((low * high).sum(dtype=np.uint64)) ^ turned
