"""The header of a safetensors file: names, dtypes, shapes and byte ranges, checked.

Format: an 8-byte little-endian header length, that many bytes of JSON, then the data
(https://huggingface.co/docs/safetensors). The reference reader takes headers of up to 100 MB; here
the bound is that of file_bounds, which is six times what the largest known models have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, cast

from merge_ops.checkpoints.files.file_bounds import HEADER, MAX_TENSORS
from merge_ops.checkpoints.files.strict_json import load_json
from merge_ops.errors import CheckpointError

ITEM_SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "C64": 8,
}  # fmt: skip
# Floats of less than a byte are quantized weights, whatever the config says.
QUANTIZED_DTYPES = frozenset({"F4", "F6_E2M3", "F6_E3M2"})
FLOAT_DTYPES = frozenset({"F64", "F32", "F16", "BF16"})
MAX_HEADER = HEADER.nbytes
MAX_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor entry says where one tensor lies: dtype code, shape, byte range in a file."""

    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int

    @property
    def count(self) -> int:
        """Return the number of elements."""
        return prod(self.shape)


def read_header(
    where: str, file: str, size: int, read: Callable[[int, int], bytes]
) -> dict[str, TensorEntry]:
    """Read the header of one file of `size` bytes and return its tensors by name.

    `read(offset, length)` gives bytes of the file. `where` names the file in messages. Raises
    CheckpointError where the header is truncated, longer than the file, malformed, or does not
    cover the data exactly once.
    """
    if size < 8:
        raise CheckpointError(f"{where}: {size} bytes are no safetensors file; download it again")
    length = int.from_bytes(read(0, 8), "little")
    if length > min(size - 8, MAX_HEADER):
        raise CheckpointError(
            f"{where}: its header claims {length} bytes, but the file has {size}, and at most"
            f" {MAX_HEADER} are read; it is truncated or no safetensors file"
        )
    data = read(8, length)
    if data.count(b"{") > MAX_TENSORS + 2:
        raise CheckpointError(too_many(where))
    try:
        raw = load_json(data, bound=HEADER)
        if data.count(b":") != _pairs(raw):  # a key twice, or a colon in a name: look closer
            load_json(data, one_value_each=True, bound=HEADER)
    except ValueError as error:
        raise CheckpointError(f"{where}: the header is not valid JSON ({error})") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{where}: the header is not a JSON object")
    table = cast(dict[str, Any], raw)
    table.pop("__metadata__", None)
    # What is parsed goes as it is read, and models of one kind share the names of their tensors.
    known: dict[tuple[Any, ...], _Kind] = {}
    entries = {
        sys.intern(key): _entry(where, file, 8 + length, key, table.pop(key), known)
        for key in [*table]
    }
    _check_ranges(where, entries, 8 + length, size)
    return entries


def _pairs(raw: Any) -> int:
    """How many keys a header's object and the objects in it have: each is followed by a colon."""
    table = cast(dict[str, Any], raw) if isinstance(raw, dict) else {}
    inner = [cast(dict[str, Any], each) for each in table.values() if isinstance(each, dict)]
    return sum(map(len, [table, *inner]))


def too_many(where: str) -> str:
    """Return the sentence on a file or folder with far too many tensors."""
    return f"{where}: holds more than {MAX_TENSORS} tensors, which are the most that are read"


_Kind = tuple[str, tuple[int, ...], int]
"""A dtype, a shape and their bytes, which the tensors of one kind share."""
_WHOLE = frozenset((int,))


def _entry(
    where: str, file: str, start: int, key: str, value: Any, known: dict[tuple[Any, ...], _Kind]
) -> TensorEntry:
    """The entry of one tensor; `known` has the kinds that were found sound before."""
    try:
        dtype, shape = value["dtype"], value["shape"]
        begin, end = value["data_offsets"]
        kind = known.get((dtype, *shape))
    except (TypeError, KeyError, ValueError):
        kind, dtype, shape, begin, end = None, "", [-1], 0, 0
    if (
        kind is not None
        and type(begin) is type(end) is int
        and 0 <= begin <= end < 1 << 63
        and end - begin == kind[2]
        and _WHOLE.issuperset(map(type, shape))  # true and 1.0 are equal to 1
    ):
        return TensorEntry(kind[0], kind[1], file, start + begin, kind[2])
    if not (isinstance(dtype, str) and _are_sizes(shape) and _are_sizes([begin, end])):
        raise CheckpointError(
            f"{where}: tensor '{_short(key)}' has a malformed header entry; download the file again"
        )
    if dtype in QUANTIZED_DTYPES:
        raise CheckpointError(
            f"{where}: tensor '{_short(key)}' is {dtype}, floats of less than a byte: the model is"
            " quantized; merge the unquantized checkpoint and quantize the result"
        )
    if dtype not in ITEM_SIZES:
        raise CheckpointError(
            f"{where}: tensor '{_short(key)}' has the unknown dtype '{_short(dtype)}'; known:"
            f" {', '.join(ITEM_SIZES)}"
        )
    if prod(shape) * ITEM_SIZES[dtype] != end - begin:
        raise CheckpointError(
            f"{where}: tensor '{_short(key)}' is {dtype} {shape} but takes {end - begin} bytes;"
            " download the file again"
        )
    kind = known.setdefault((dtype, *shape), (sys.intern(dtype), tuple(shape), end - begin))
    return TensorEntry(kind[0], kind[1], file, start + begin, kind[2])


def _are_sizes(numbers: Any) -> bool:
    """Whether this is a list of a few whole numbers that a file could have."""
    if not isinstance(numbers, list) or len(cast(list[Any], numbers)) > MAX_DIMENSIONS:
        return False
    for each in cast(list[Any], numbers):  # `all` of a generator takes twice as long
        if type(each) is not int or not 0 <= each < 1 << 63:
            return False
    return True


def _short(text: str) -> str:
    """A name as messages show it; a header may hold one of megabytes."""
    return text if len(text) <= 200 else f"{text[:200]}…"


def _check_ranges(where: str, entries: Mapping[str, TensorEntry], start: int, size: int) -> None:
    """The data must be covered exactly once, to the last byte."""
    position = start
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if entry.offset != position:
            what = "overlaps the one before it" if entry.offset < position else "leaves a hole"
            raise CheckpointError(
                f"{where}: the data of tensor '{_short(key)}' {what}; the file is damaged"
            )
        position += entry.nbytes
    if position != size:
        what = "is truncated" if size < position else "has bytes after its last tensor"
        raise CheckpointError(
            f"{where}: the file {what} (its header needs {position} bytes, it has {size}); download"
            " it again"
        )
