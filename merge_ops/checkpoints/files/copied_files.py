"""Files beside the weights that are written as they are: streamed, however large they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file

PIECE = 1 << 20


@dataclass(frozen=True)
class CopiedFile:
    """A copied file is one of a model's, whose bytes are read when they are written."""

    source: ByteSource
    name: str
    size: int

    def __len__(self) -> int:
        """Return the bytes of the file."""
        return self.size


SideFile = bytes | CopiedFile
"""The bytes of a file, or where they are to be copied from."""


def side_file(source: ByteSource, name: str, size: int) -> SideFile:
    """Return a file beside the weights: its bytes where they are few."""
    if size > PIECE:
        return CopiedFile(source, name, size)
    return read_file(source, name, 0, size)


def part_of(file: SideFile, offset: int, length: int) -> bytes:
    """Return bytes of a file from `offset`, fewer at its end."""
    if isinstance(file, bytes):
        return file[offset : offset + length]
    return read_file(file.source, file.name, offset, min(length, max(file.size - offset, 0)))


def pieces_of(file: SideFile) -> Iterator[bytes]:
    """Yield the bytes of a file in order, in pieces of a bounded size."""
    for offset in range(0, len(file), PIECE):
        yield part_of(file, offset, PIECE)
