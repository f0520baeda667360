"""One piece of a tensor as its exact difference from the base, in few bytes.

Floats are sign and magnitude; as ordered integers their neighbours differ by one, so a weight that
fine-tuning moved by a rounding step or two has a small difference, and NaN payloads, -0.0 and
infinities are numbers like any other. How many steps a weight moved depends on how long its steps
are, which its exponent says: most weights of a large exponent stay, those of a small one scatter.
The base knows the exponents. So the differences are brought into the order of the base's exponents
(stable, within the piece), where like stands beside like, and coded in groups:

    ordered expert − ordered base, wrapping     →  0, ±1, ±2, … as 0, 2·|d|−1, 2·d (zigzag)
    by exponent, in groups of 4,096             →  1, 2 or 4 bits each, whichever is shortest;
                                                   the largest such number says "too large"
    what is too large, less that number         →  bytes, the lowest of all, the next of all, …
    everything, stream by stream                →  zstd

A group that is too large throughout has no bits at all, and a piece that is equal to the base's is
zero bytes long. What the base has nothing for is coded by its bytes alone (`encode_whole`).
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.checkpoints.header import ITEM_SIZES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[Any]  # unsigned integers of the dtype's size

EXPONENTS = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF)}
"""Where the exponent lies in the dtypes that are coded as differences: shift and mask."""
GROUP = 4096
WIDTHS = (0, 1, 2, 4)
_KNOWN = np.isin(np.arange(256), WIDTHS)
LEVEL = 1  # of zstd; higher ones are slower by far and hardly smaller

_local = threading.local()


class DamagedPieceError(ValueError):
    """The bytes are no coded piece, or the coded piece of another tensor."""


def encode_difference(expert: NDArray[np.uint8], base: NDArray[np.uint8], dtype: str) -> bytes:
    """Code the bytes of `expert`, flat, as a difference from as many bytes of the base.

    Returns the coded bytes, b"" where both are equal.
    """
    theirs, own = _unsigned(base, dtype), _unsigned(expert, dtype)
    if np.array_equal(theirs, own):
        return b""
    difference = _ordered(own) - _ordered(theirs)
    sign = (difference.view(_signed(difference)) >> (difference.itemsize * 8 - 1)).view(own.dtype)
    moved = ((difference << 1) ^ sign)[_by_exponent(theirs, dtype)]
    groups = np.zeros((-(-len(moved) // GROUP), GROUP), dtype=moved.dtype)
    groups.reshape(-1)[: len(moved)] = moved
    widths = _shortest(groups)
    streams: list[NDArray[np.uint8]] = [widths]
    large: list[Words] = []
    for width in WIDTHS:
        most, values = (1 << width) - 1, groups[widths == width].reshape(-1)
        if width:
            streams.append(_packed(np.minimum(values, most).astype(np.uint8), width))
        large.append(values[values >= most] - values.dtype.type(most))
    return _bundle([*streams, *_planes(np.concatenate(large))])


def decode_difference(coded: bytes | memoryview, values: NDArray[np.uint8], dtype: str) -> None:
    """Turn the base's bytes in `values` into the expert's, in place.

    Raises DamagedPieceError where `coded` does not fit them.
    """
    if not len(coded):
        return
    target = _unsigned(values, dtype)
    count, size = -(-len(target) // GROUP), target.itemsize
    largest = [count, *(count * GROUP * width // 8 for width in WIDTHS if width)]
    streams = _unbundle(coded, [*largest, *[count * GROUP] * size])
    widths, planes = streams[0], streams[len(WIDTHS) :]
    if len(widths) != count or not _KNOWN[widths].all():
        raise DamagedPieceError("its groups are not those of the tensor")
    if any(len(plane) != len(planes[0]) for plane in planes):
        raise DamagedPieceError("its bytes do not belong together")
    large, groups = _joined(planes, target.dtype), np.empty((count, GROUP), dtype=target.dtype)
    taken = 0
    for width, stream in zip(WIDTHS, (np.empty(0, np.uint8), *streams[1:]), strict=False):
        chosen, most = widths == width, (1 << width) - 1
        wanted = int(chosen.sum()) * GROUP
        if len(stream) != wanted * width // 8:
            raise DamagedPieceError("a stream is too short or too long")
        part = _unpacked(stream, width, wanted).astype(target.dtype)
        above = np.flatnonzero(part == most) if width else np.arange(wanted)
        if taken + len(above) > len(large):
            raise DamagedPieceError("a stream is too short")
        part[above] = large[taken : taken + len(above)] + target.dtype.type(most)
        groups[chosen] = part.reshape(-1, GROUP)
        taken += len(above)
    if taken != len(large):
        raise DamagedPieceError("a stream is too long")
    moved = np.empty_like(target)
    moved[_by_exponent(target, dtype)] = groups.reshape(-1)[: len(target)]
    one = target.dtype.type(1)
    difference = (moved >> one) ^ (target.dtype.type(0) - (moved & one))
    target[:] = _ordered(_ordered(target) + difference)


def encode_whole(data: NDArray[np.uint8], size: int) -> bytes:
    """Code flat bytes by themselves and return the coded bytes.

    They are items of `size` bytes; the lowest bytes of all items come first.
    """
    return _bundle([np.ascontiguousarray(data[place::size]) for place in range(size)])


def decode_whole(coded: bytes | memoryview, into: NDArray[np.uint8], size: int) -> None:
    """Fill `into` with what `encode_whole` coded.

    Raises DamagedPieceError where the lengths differ.
    """
    streams = _unbundle(coded, [len(into) // size] * size)
    if any(len(stream) != len(into) // size for stream in streams):
        raise DamagedPieceError("it has another length than the tensor")
    for place, stream in enumerate(streams):
        into[place::size] = stream


def _unsigned(data: NDArray[np.uint8], dtype: str) -> Words:
    return data.view(f"<u{ITEM_SIZES[dtype]}")


def _signed(values: Words) -> str:
    return f"<i{values.itemsize}"


def _ordered(values: Words) -> Words:
    """Sign and magnitude to two's complement in the order of the floats, and back: -0.0 is -1."""
    signed = values.view(_signed(values))
    bits = values.itemsize * 8 - 1
    return values ^ (signed >> bits).view(values.dtype) & values.dtype.type((1 << bits) - 1)


def _by_exponent(base: Words, dtype: str) -> NDArray[np.intp]:
    """The places of the base's values in the order of their exponents (a radix sort)."""
    shift, mask = EXPONENTS[dtype]
    exponents = (base >> base.dtype.type(shift)).astype(np.uint8) & np.uint8(mask)
    return np.argsort(exponents, kind="stable")


def _shortest(groups: Words) -> NDArray[np.uint8]:
    """The width for each group that will take the fewest bits, as far as counts can tell.

    An element takes its entropy between "zero" and "not zero" but no less than a bit for each
    coded byte, one more bit where other small values remain, and what is too large its bytes.
    """
    bits = np.minimum(np.log2(groups.mean(axis=1, dtype=np.float64) + 1) + 2, groups.itemsize * 8)
    costs = [bits]
    changed = np.clip(np.count_nonzero(groups, axis=1) / GROUP, 1e-9, 1 - 1e-9)
    entropy = -(changed * np.log2(changed) + (1 - changed) * np.log2(1 - changed))
    for width in WIDTHS[1:]:
        most = (1 << width) - 1
        large = np.count_nonzero(groups >= most, axis=1) / GROUP
        small = entropy + (changed - large) * (width - 1)
        costs.append(np.maximum(small, width / 8) + large * bits)
    return np.array(WIDTHS, dtype=np.uint8)[np.argmin(np.stack(costs), axis=0)]


def _packed(values: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Numbers below 2^width, 8 / width to a byte, the first lowest."""
    rows = values.reshape(-1, 8 // width)
    packed = rows[:, 0].copy()
    for place in range(1, rows.shape[1]):
        packed |= rows[:, place] << np.uint8(width * place)
    return packed


_TABLES = {
    width: np.stack(
        [np.arange(256, dtype=np.uint8) >> np.uint8(place) for place in range(0, 8, width)], axis=1
    )
    & np.uint8((1 << width) - 1)
    for width in WIDTHS
    if width
}


def _unpacked(stream: NDArray[np.uint8], width: int, count: int) -> NDArray[np.uint8]:
    if not width:
        return np.empty(count, dtype=np.uint8)
    return _TABLES[width][stream].reshape(-1)


def _planes(values: Words) -> list[NDArray[np.uint8]]:
    """The lowest bytes of all, the next of all, …"""
    rows = values.view(np.uint8).reshape(-1, values.itemsize)
    return [np.ascontiguousarray(rows[:, place]) for place in range(values.itemsize)]


def _joined(planes: Sequence[NDArray[np.uint8]], dtype: np.dtype[Any]) -> Words:
    return np.stack(planes, axis=1).reshape(-1).view(dtype)


def _bundle(streams: Sequence[NDArray[np.uint8]]) -> bytes:
    """Streams one behind the other: a checksum, the lengths of each before and after, the data."""
    codec = _codec()
    parts: list[bytes] = []
    lengths: list[int] = []
    for stream in streams:
        raw = stream.tobytes()
        small = cast(bytes, codec.compress(raw, asbytes=True)) if raw else b""
        parts.append(small if len(small) < len(raw) else raw)
        lengths += [len(raw), len(parts[-1])]
    body = struct.pack(f"<{len(lengths)}I", *lengths) + b"".join(parts)
    return zlib.crc32(body).to_bytes(4, "little") + body


def _unbundle(coded: bytes | memoryview, most: Sequence[int]) -> list[NDArray[np.uint8]]:
    """The streams, none longer than `most` says. Raises DamagedPieceError."""
    view, table = memoryview(coded), 4 + 8 * len(most)
    if len(view) < table or zlib.crc32(view[4:]) != int.from_bytes(view[:4], "little"):
        raise DamagedPieceError("its checksum is another one")
    lengths = struct.unpack(f"<{2 * len(most)}I", view[4:table])
    streams: list[NDArray[np.uint8]] = []
    for limit, raw, small in zip(most, lengths[::2], lengths[1::2], strict=True):
        if raw > limit or small > raw or table + small > len(view):
            raise DamagedPieceError("a stream is too long")
        part = view[table : table + small]
        streams.append(np.frombuffer(part if small == raw else _inflated(part, raw), np.uint8))
        table += small
    if table != len(view):
        raise DamagedPieceError("bytes follow its last stream")
    return streams


def _inflated(part: memoryview, raw: int) -> bytes:
    try:
        found = cast(bytes, _codec().decompress(part, decompressed_size=raw, asbytes=True))
    except (OSError, ValueError) as error:
        raise DamagedPieceError(f"zstd cannot read it ({error})") from error
    if len(found) != raw:
        raise DamagedPieceError("zstd finds another length")
    return found


def _codec() -> Any:
    """pyarrow's zstd (it lets other threads run), one for each thread."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]

    if not hasattr(_local, "codec"):
        _local.codec = cast(Any, pyarrow).Codec("zstd", compression_level=LEVEL)
    return _local.codec
