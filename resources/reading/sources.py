"""Bytes of many files by (file, offset), and what has to be known of an artifact to read it so.

One object by its offset is a place's `PlaceReader`. A library that merges checkpoints asks for
bytes in the same way as `FileSource` gives them, by a protocol of its own.
"""

from typing import Protocol, Self

from resources.reading.records import FileRecord


class FileSource(Protocol):
    """Random access to files, held open within its context; thread-safe."""

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise an OSError."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class Published(Protocol):
    """What is known of an artifact's files: where each lies, and what its bytes must be."""

    uri: str
    files: dict[str, FileRecord]

    def key(self, file: str) -> str:
        """Return the place's key of a file; DamagedArtifactError when there is no such file."""
        ...

    def piece_digests(self, file: str) -> tuple[int, bytes]:
        """Return the bytes of a piece and the digests of all pieces of a file."""
        ...
