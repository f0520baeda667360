"""Files on their way out of a store: read where they lie, checked, and never held whole."""

import io
from dataclasses import dataclass
from typing import Any

from resources.reading import FileSource

_BUFFER = 8 << 20
"""Bytes that a file holds in memory while it is read."""


@dataclass(frozen=True)
class OutgoingFile:
    """A file by its path below the model's folder: `data`, or what a source has under that path."""

    path: str
    size: int
    source: FileSource | None = None
    data: bytes | None = None

    def open(self) -> io.BufferedIOBase:
        """Open it for reading; a source's file is read piece by piece, and may be sought in.

        Reading raises what the source raises where the bytes are not those that were published.
        """
        if self.data is not None or self.source is None:
            return io.BytesIO(self.data or b"")
        return io.BufferedReader(_Raw(self.source, self.path, self.size), _BUFFER)


class _Raw(io.RawIOBase):
    """A file of a source as Python reads files."""

    def __init__(self, source: FileSource, path: str, size: int) -> None:
        self._source, self._path, self._size = source, path, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._position))
        if count:
            self._source.read_into(self._path, self._position, view[:count])
            self._position += count
        return count
