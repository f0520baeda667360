"""What is known of an artifact's files before they are read: path, size and hash."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blake3 import blake3

Progress = Callable[[int, int], None]  # (bytes done, bytes in all)


@dataclass(frozen=True, order=True)
class FileRecord:
    """One file of an artifact: relative POSIX path, size in bytes, blake3 in hex."""

    path: str
    size: int
    blake3: str


def content_digest(files: Iterable[FileRecord]) -> str:
    """Return the blake3 of the sorted file list: equal exactly when paths and bytes are equal."""
    hasher = blake3(b"ronghe files 1\n")
    for file in sorted(files):
        hasher.update(f"{file.blake3} {file.size} {file.path}\n".encode())
    return hasher.hexdigest()
