"""Packing: a full-weight expert as its base's digest and the exact difference, losslessly.

A sink that takes the files of a model in order and writes them packed into a folder, piece by piece
in several threads; nothing larger than a few pieces is held. restoring.py writes them again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import blake3
import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteWriter
from merge_ops.checkpoints.header import ITEM_SIZES, MAX_HEADER, TensorEntry, read_header
from merge_ops.errors import CheckpointError, PackedModelError
from merge_ops.kernels.cores import usable_cores
from merge_ops.sources.difference_coding import EXPONENTS, encode_difference, encode_whole
from merge_ops.sources.packed_index import (
    DATA_SUFFIX,
    HEADER,
    INDEX_FILE,
    OriginalFile,
    PackedIndex,
    Section,
    piece_bytes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = ".safetensors"


@dataclass
class _Section:
    """A section on its way: `entry` is the base's tensor where differences are taken."""

    name: str | None
    dtype: str
    nbytes: int
    entry: TensorEntry | None
    lengths: list[int]


@dataclass(frozen=True)
class _Piece:
    """A piece that is not yet coded: its section, its first byte there, its length."""

    section: _Section
    start: int
    length: int


class PackingSink:
    """A packing sink takes a model's files one after the other and packs them into `folder`.

    `base` is a full checkpoint whose digest is known; `called` is what messages call the model. Use
    it as a context manager, and `finish` it. Raises CheckpointError for a damaged weight file,
    PackedModelError for a base without a digest and for a file name that packed models use
    themselves.
    """

    def __init__(
        self, folder: Path, base: Checkpoint, threads: int = 0, called: str = "model"
    ) -> None:
        if base.digest is None:
            raise PackedModelError(f"base {base.name} has no digest, so nothing can refer to it")
        self.folder = folder
        self.base = base
        self.called = called
        self.digest = base.digest
        self.files: list[OriginalFile] = []
        self.threads = threads or usable_cores()
        self.pool = ThreadPoolExecutor(self.threads, "pack")

    def open(self, file: str, size: int) -> ByteWriter:
        """Start a file of exactly `size` bytes, and return its writer.

        Raises PackedModelError for a file name that packed models use themselves.
        """
        if file == INDEX_FILE or file.endswith(DATA_SUFFIX):
            raise PackedModelError(
                f"the model has a file {file!r}, a name that packed models use; say `store: full`"
            )
        if file.endswith(WEIGHTS):
            return _WeightWriter(self, file, size)
        return _SideWriter(self, file, size)

    def finish(self) -> PackedIndex:
        """Write the index beside the files and return it."""
        index = PackedIndex(self.digest, tuple(self.files))
        text = json.dumps(index.to_json(), ensure_ascii=False, separators=(",", ":"))
        (self.folder / INDEX_FILE).write_text(text + "\n", encoding="utf-8")
        return index

    def __enter__(self) -> PackingSink:
        return self

    def __exit__(self, *error: object) -> None:
        self.pool.shutdown(cancel_futures=True)


class _SideWriter:
    """A file that stays as it is."""

    def __init__(self, sink: PackingSink, file: str, size: int) -> None:
        self._sink, self._file, self._size = sink, file, size
        path = sink.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = path.open("wb")
        self._hash = blake3.blake3()

    def write(self, data: memoryview | bytes) -> object:
        """Append bytes."""
        self._hash.update(data)
        return self._out.write(data)

    def __enter__(self) -> ByteWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._out.close()
        if error[0] is None:
            digest = self._hash.hexdigest()
            self._sink.files.append(OriginalFile(self._file, self._size, digest, None))


class _WeightWriter:
    """A safetensors file: its header is read as it comes by, then piece after piece is coded."""

    def __init__(self, sink: PackingSink, file: str, size: int) -> None:
        self._sink, self._file, self._size = sink, file, size
        self._where = f"{sink.called}/{file}"
        self._out = (sink.folder / (file + DATA_SUFFIX)).open("wb")
        self._hash = blake3.blake3(max_threads=blake3.blake3.AUTO)
        self._head: bytearray | None = bytearray()
        self._sections: list[_Section] = []
        self._pieces: Iterator[_Piece] = iter(())
        self._piece: _Piece | None = None
        self._buffer = np.empty(0, dtype=np.uint8)
        self._filled = 0
        self._coding: deque[tuple[_Section, Future[bytes]]] = deque()

    def write(self, data: memoryview | bytes) -> object:
        """Append bytes."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        if self._head is None:
            self._feed(view)
            return None
        self._head += view
        if self._header_is_whole(self._head):
            head, self._head = self._head, None
            self._start(bytes(head))
            self._feed(memoryview(head))
        return None

    def __enter__(self) -> ByteWriter:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._finish()
        finally:
            while self._coding:
                self._coding.popleft()[1].cancel()
            self._out.close()

    def _header_is_whole(self, head: bytearray) -> bool:
        if len(head) < min(8, self._size):
            return False
        length = int.from_bytes(head[:8], "little")
        return len(head) >= min(8 + length, self._size) or length > MAX_HEADER

    def _start(self, head: bytes) -> None:
        where = self._where
        found = read_header(where, self._file, self._size, lambda at, n: head[at : at + n])
        length = 8 + int.from_bytes(head[:8], "little")
        self._sections.append(_Section(None, HEADER, length, None, []))
        for name, entry in sorted(found.items(), key=_place):
            self._sections.append(
                _Section(name, entry.dtype, entry.nbytes, self._alike(name, entry), [])
            )
        self._pieces = iter(list(self._cut()))
        self._next()

    def _alike(self, name: str, entry: TensorEntry) -> TensorEntry | None:
        """The base's tensor where a difference from it can be taken."""
        own = self._sink.base.tensors.get(name)
        same = own is not None and (own.dtype, own.shape) == (entry.dtype, entry.shape)
        return own if same and entry.dtype in EXPONENTS else None

    def _cut(self) -> Iterator[_Piece]:
        for each in self._sections:
            step = piece_bytes(each.dtype)
            for start in range(0, each.nbytes, step):
                yield _Piece(each, start, min(step, each.nbytes - start))

    def _next(self) -> None:
        self._piece = next(self._pieces, None)
        self._filled = 0
        if self._piece is not None:
            self._buffer = np.empty(self._piece.length, dtype=np.uint8)

    def _feed(self, view: memoryview) -> None:
        data = np.frombuffer(view, dtype=np.uint8)
        while len(data):
            if self._piece is None:
                raise CheckpointError(f"{self._where}: more bytes came than announced")
            count = min(len(data), self._piece.length - self._filled)
            self._buffer[self._filled : self._filled + count] = data[:count]
            self._filled += count
            data = data[count:]
            if self._filled == self._piece.length:
                future = self._sink.pool.submit(_encode, self._sink.base, self._piece, self._buffer)
                self._coding.append((self._piece.section, future))
                self._write_down(2 * self._sink.threads)
                self._next()

    def _write_down(self, waiting: int) -> None:
        """Write coded pieces in order until no more than `waiting` are left."""
        while len(self._coding) > waiting:
            section, future = self._coding.popleft()
            coded = future.result()
            section.lengths.append(len(coded))
            self._out.write(coded)

    def _finish(self) -> None:
        self._write_down(0)
        if self._head is not None or self._piece is not None:
            raise CheckpointError(
                f"{self._where}: fewer than its {self._size} bytes came; pull it again"
            )
        sections: list[Section] = []
        start = at = 0
        for each in self._sections:
            lengths = tuple(each.lengths)
            differs = each.entry is not None
            sections.append(
                Section(each.name, each.dtype, each.nbytes, differs, lengths, start, at)
            )
            start, at = start + each.nbytes, at + sum(lengths)
        digest = self._hash.hexdigest()
        self._sink.files.append(OriginalFile(self._file, self._size, digest, tuple(sections)))


def _place(named: tuple[str, TensorEntry]) -> tuple[int, int]:
    return named[1].offset, named[1].nbytes


def _encode(base: Checkpoint, piece: _Piece, data: NDArray[np.uint8]) -> bytes:
    entry, section = piece.section.entry, piece.section
    if entry is None:
        return encode_whole(data, ITEM_SIZES[section.dtype])
    own = np.empty(piece.length, dtype=np.uint8)
    base.source.read_into(entry.file, entry.offset + piece.start, memoryview(cast(bytearray, own)))
    return encode_difference(data, own, section.dtype)
