"""Checksums of bytes by pieces: fast enough to check all that a merge reads (kernels_checksums.c).

They tell damage and changes, whether of one bit or of all; against someone who looks for other
bytes with the same checksum they are none, and are always taken beside a BLAKE3 of the same bytes.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, cast

import numpy as np

from merge_ops.kernels.library import library

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.uint64]

_WORDS = 8
_PRIME, _ALL = 0x9E3779B97F4A7C15, (1 << 64) - 1
RIGHT, MISSING = -1, -2


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


class CheckedPieces:
    """Checked pieces read a file of `size` bytes, whose pieces must have the `expected` checksums.

    Several threads may read at once.
    """

    def __init__(self, size: int, piece: int, expected: Numbers) -> None:
        self._size = size
        self._piece = piece
        self._expected = expected  # held here, for the loop in C is only told where it lies
        self._compiled = library()
        self._at = expected.ctypes.data
        self._local = threading.local()

    def read(self, file: int, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset` of the open `file`; the range lies within it.

        Returns RIGHT, MISSING where bytes are not there or cannot be read, or else the first byte
        of a piece that is wrong.
        """
        try:
            scratch, room = self._local.held
        except AttributeError:
            scratch = np.empty(self._piece, dtype=np.uint8)
            room = scratch.ctypes.data
            self._local.held = scratch, room
        size, piece = self._size, self._piece
        if self._compiled is None:
            whole = memoryview(cast(bytearray, scratch))
            return _read_checked(file, offset, buffer, size, piece, self._expected, whole)
        into: int = np.frombuffer(buffer, dtype=np.uint8).__array_interface__["data"][0]
        count = len(buffer)
        read = self._compiled.read_checked
        return int(read(file, offset, count, size, piece, self._at, room, into))


def _read_checked(
    file: int,
    offset: int,
    buffer: memoryview,
    size: int,
    piece: int,
    expected: Numbers,
    scratch: memoryview,
) -> int:
    """What the loop in C does, piece by piece."""
    at, end = offset, offset + len(buffer)
    while at < end:
        number = at // piece
        start, stop = number * piece, min(size, (number + 1) * piece)
        whole = scratch[: stop - start]
        done = 0
        while done < len(whole):
            got = os.preadv(file, [whole[done:]], start + done)
            if not got:
                return MISSING
            done += got
        if checksums(whole, piece)[0] != expected[number]:
            return start
        until = min(stop, end)
        buffer[at - offset : until - offset] = whole[at - start : until - start]
        at = until
    return RIGHT


def _checksum(piece: NDArray[np.uint8]) -> int:
    """What the loop in C gives, slower; a piece takes some memory more."""
    rows = -(-len(piece) // (8 * _WORDS))
    filled = np.zeros(rows * 8 * _WORDS, dtype=np.uint8)
    filled[: len(piece)] = piece
    words = cast("Numbers", filled.view("<u8")).astype(np.uint64, copy=False)
    sums = words.reshape(rows, _WORDS).cumsum(axis=0, dtype=np.uint64)
    first = second = 0
    for one, other in zip(
        sums[-1].tolist(), sums.sum(axis=0, dtype=np.uint64).tolist(), strict=True
    ):
        first = (first * _PRIME + one) & _ALL
        second = (second * _PRIME + other) & _ALL
    return first ^ ((second << 32 | second >> 32) & _ALL)
