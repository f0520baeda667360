"""The files of a model far away as a source of bytes, of which headers are read."""

from collections.abc import Mapping
from typing import Protocol

_SMALL = 32 << 20
"""Bytes of a file beside the weights that is fetched whole, at once: the largest tokenizers."""
_HEAD = 128 << 10
"""Bytes fetched with the first look into a file of weights: most headers are shorter."""


class RangedFiles(Protocol):
    """Files that a server gives ranges of, as every far model of `resources.upstream` has them."""

    def resolved(self) -> str:
        """Return the URI that names exactly what is read."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes, by its relative POSIX path."""
        ...

    def read(self, file: str, offset: int, length: int) -> bytes:
        """Return a range of a file, by a request; fewer bytes at its end."""
        ...


class FarBytes:
    """Far bytes are read by ranges; the start of each file is fetched once, and kept.

    Of weights that is as much as most headers take, of a smaller file all of it.
    """

    def __init__(self, files: RangedFiles) -> None:
        self._files = files
        self._sizes = dict(files.sizes())
        self._starts: dict[str, bytes] = {}
        self.location = files.resolved()

    @property
    def starts(self) -> Mapping[str, bytes]:
        """Return what was kept of the files that were read so far."""
        return self._starts

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes, by its relative POSIX path."""
        return self._sizes

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise OSError."""
        end = offset + len(buffer)
        start = self._start(file)
        data = start[offset:end]
        if end > len(start):
            data += self._files.read(file, offset + len(data), end - offset - len(data))
        if len(data) != len(buffer):
            raise OSError(f"{self.location}/{file} ends at byte {offset + len(data)}")
        buffer[:] = data

    def _start(self, file: str) -> bytes:
        if file not in self._starts:
            size = self._sizes[file]
            large = file.endswith((".safetensors", ".bin")) or size > _SMALL
            length = min(size, _HEAD) if large else size
            self._starts[file] = self._files.read(file, 0, length) if length else b""
        return self._starts[file]
