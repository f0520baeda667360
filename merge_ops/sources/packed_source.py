"""A packed model's files, byte for byte as they were, decoded while they are read.

Behind the read of every other source: a tensor of a packed expert is a stored tensor to whoever
reads it, with the same name, digest and bytes. A read decodes the pieces it needs straight into its
buffer, over the base's bytes. A piece that it needs only a part of is decoded once and kept for the
neighbour that needs the rest.

Memory, for all threads: `CACHE_BYTES` of decoded pieces; for each thread, beside its buffer, one
piece, what decoding it takes (about 24 bytes an element), and the coded bytes of a few.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.errors import PackedModelError
from merge_ops.sources.difference_coding import DamagedPieceError, decode_difference, decode_whole
from merge_ops.sources.packed_index import (
    DATA_SUFFIX,
    INDEX_FILE,
    PULL_AGAIN,
    OriginalFile,
    PackedIndex,
    Section,
    parse_index,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

CACHE_BYTES = 16 << 20
RUN = 8  # pieces whose coded bytes, and whose base, are fetched by one read

_Key = tuple[str, int, int]


def read_index(source: ByteSource) -> PackedIndex:
    """Read the index of the packed model at `source` and return it.

    Raises PackedModelError where there is none, where it is damaged, or where the sizes of the
    files differ from it.
    """
    where, sizes = f"{source.location}/{INDEX_FILE}", source.sizes()
    if INDEX_FILE not in sizes:
        raise PackedModelError(f"{source.location}: there is no {INDEX_FILE}; this is not packed")
    index = parse_index(read_file(source, INDEX_FILE, 0, sizes[INDEX_FILE]), where)
    for file in index.files:
        name = file.path if file.sections is None else file.path + DATA_SUFFIX
        if sizes.get(name) != file.packed_size:
            found = f"has {sizes[name]} bytes" if name in sizes else "is not there"
            raise PackedModelError(
                f"{source.location}: {name} {found}, but {INDEX_FILE} says {file.packed_size};"
                f" {PULL_AGAIN}"
            )
    return index


class PackedSource:
    """A packed source reads the model packed at `source` as it was before.

    It is a ByteSource, and several threads may read it at once. `base` is the checkpoint that it
    was packed against. Raises PackedModelError where that is another one, or the index is damaged;
    reads raise it where a piece is damaged.
    """

    def __init__(self, source: ByteSource, base: Checkpoint) -> None:
        self.index = read_index(source)
        self._source = source
        self._base = base
        self._files = {file.path: file for file in self.index.files}
        self._starts = {
            file.path: np.array([each.start for each in file.sections], dtype=np.int64)
            for file in self.index.files
            if file.sections is not None
        }
        self._kept: OrderedDict[_Key, Future[NDArray[np.uint8]]] = OrderedDict()
        self._lock = threading.Lock()
        self._check_base()

    @property
    def location(self) -> str:
        """Return where the packed files are."""
        return self._source.location

    def sizes(self) -> Mapping[str, int]:
        """Return the bytes of the model's files as they were, by path."""
        return {file.path: file.size for file in self.index.files}

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes that the file had from `offset`.

        Raises OSError where the file had none there, PackedModelError where a piece is damaged.
        """
        original = self._files.get(file)
        if original is None or offset < 0 or offset + len(buffer) > original.size:
            what = "there is no such file" if original is None else f"it has {original.size} bytes"
            raise OSError(
                f"{self.location}: {file}, bytes {offset} to {offset + len(buffer)}: {what}"
            )
        if original.sections is None:
            self._source.read_into(file, offset, buffer)
            return
        end = offset + len(buffer)
        number = int(np.searchsorted(self._starts[file], offset, side="right")) - 1
        while offset < end:
            section = original.sections[number]
            stop = min(end, section.start + section.nbytes)
            if stop > offset:
                part = buffer[len(buffer) - (end - offset) : len(buffer) - (end - stop)]
                self._read(original, number, offset - section.start, np.frombuffer(part, np.uint8))
                offset = stop
            number += 1

    def __enter__(self) -> PackedSource:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._kept.clear()

    def _read(self, file: OriginalFile, number: int, first: int, into: NDArray[np.uint8]) -> None:
        """Fill `into` from byte `first` of a section: whole pieces in runs, parts by the cache."""
        assert file.sections is not None
        section = file.sections[number]
        last, done = first + len(into), first
        while done < last:
            piece = done // section.piece
            start, end = section.bounds(piece)
            if start == done and end <= last:
                pieces = min(RUN, max(1, (last - done) // section.piece))
                end = section.bounds(piece + pieces - 1)[1]
                self._decode(file, section, piece, pieces, into[done - first : end - first])
            else:
                end = min(end, last)
                whole = self._piece(file, number, piece)
                into[done - first : end - first] = whole[done - start : end - start]
            done = end

    def _piece(self, file: OriginalFile, number: int, piece: int) -> NDArray[np.uint8]:
        """One whole piece, decoded by whoever asks first."""
        assert file.sections is not None
        section, key = file.sections[number], (file.path, number, piece)
        with self._lock:
            known = self._kept.pop(key, None)
            mine = known is None
            future = self._kept[key] = Future() if known is None else known
        if not mine:
            return future.result()
        try:
            start, end = section.bounds(piece)
            values = np.empty(end - start, dtype=np.uint8)
            self._decode(file, section, piece, 1, values)
        except BaseException as error:
            with self._lock:
                self._kept.pop(key, None)
            future.set_exception(error)
            raise
        future.set_result(values)
        with self._lock:
            self._forget()
        return values

    def _forget(self) -> None:
        """Drop what was used longest ago, until the rest fits."""
        done = {key: each.result().nbytes for key, each in self._kept.items() if each.done()}
        total = sum(done.values())
        for key, nbytes in done.items():
            if total <= CACHE_BYTES:
                break
            del self._kept[key]
            total -= nbytes

    def _decode(
        self, file: OriginalFile, section: Section, piece: int, pieces: int, into: NDArray[np.uint8]
    ) -> None:
        """Decode neighbouring pieces into `into`, which is as long as they are."""
        begin = section.bounds(piece)[0]
        if section.from_base:
            entry = self._base.tensors[str(section.name)]
            self._base.source.read_into(
                entry.file, entry.offset + begin, memoryview(cast(bytearray, into))
            )
        offsets = section.offsets[piece : piece + pieces + 1]
        coded = bytearray(offsets[-1] - offsets[0])
        if coded:
            data = file.path + DATA_SUFFIX
            self._source.read_into(data, offsets[0], memoryview(coded))
        for number in range(pieces):
            low, high = (each - offsets[0] for each in offsets[number : number + 2])
            start, end = (each - begin for each in section.bounds(piece + number))
            try:
                part = memoryview(coded)[low:high]
                if section.from_base:
                    decode_difference(part, into[start:end], section.dtype)
                else:
                    decode_whole(part, into[start:end], ITEM_SIZES[section.dtype])
            except DamagedPieceError as error:
                raise PackedModelError(
                    f"{self.location}/{file.path}{DATA_SUFFIX}: bytes {offsets[number]} to"
                    f" {offsets[number + 1] - 1} are damaged ({error}); nothing was made of them."
                    f" {PULL_AGAIN}"
                ) from error

    def _check_base(self) -> None:
        """Every difference must have its tensor in the base, and the base must be the right one."""
        if self._base.digest != self.index.base:
            raise PackedModelError(
                f"{self.location}: it is packed against base {self.index.base}, but"
                f" {self._base.name} at {self._base.source.location} is"
                f" {self._base.digest or 'of unknown digest'}; give the base it was packed against"
            )
        for file in self.index.files:
            for section in file.sections or ():
                entry = self._base.tensors.get(str(section.name)) if section.from_base else None
                if section.from_base and (
                    entry is None
                    or entry.dtype != section.dtype
                    or prod(entry.shape) * ITEM_SIZES[entry.dtype] != section.nbytes
                ):
                    raise PackedModelError(
                        f"{self.location}: '{section.name}' is packed against a tensor that"
                        f" {self._base.name} has not; the index is damaged; {PULL_AGAIN}"
                    )
