"""Digests of the pieces of an artifact's files, so that any range can be checked when it is read.

A file is cut into pieces of `PIECE` bytes, the last one shorter. The tree of an artifact is the
blake3 of every piece (32 bytes each, 1/8192 of the files), the files one behind the other in the
order of their paths; those of a single piece are left out, their one digest is the file's own. It
lies beside the files, under a hidden name that no file can have, and the manifest holds its hash.
"""

from collections.abc import Mapping
from typing import Any

from blake3 import blake3

PIECE = 256 << 10
TREE = ".digests"
WIDTH = 32  # bytes of one digest


class PieceHasher:
    """Hashes the pieces of one file while its bytes come in order, cut in any way."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._open = blake3()
        self._filled = 0

    def update(self, data: memoryview) -> None:
        """Take the next bytes."""
        at = 0
        while at < len(data):
            part = data[at : at + PIECE - self._filled]
            at += len(part)
            if len(part) == PIECE:
                self._digests += blake3(part).digest()
                continue
            self._open.update(part)
            self._filled += len(part)
            if self._filled == PIECE:
                self._digests += self._open.digest()
                self._open, self._filled = blake3(), 0

    def digests(self) -> bytes:
        """Return the digests of all pieces."""
        return bytes(self._digests) + (self._open.digest() if self._filled else b"")


def piece_count(size: int, piece: int) -> int:
    """Return how many pieces a file of `size` bytes has."""
    return -(-size // piece)


def join_tree(digests: Mapping[str, bytes]) -> bytes:
    """Return the tree of files, given the digests of each one's pieces by path."""
    return b"".join(found for _, found in sorted(digests.items()) if len(found) > WIDTH)


def cut_tree(tree: bytes, sizes: Mapping[str, int], piece: int) -> dict[str, bytes]:
    """Return the digests of each file's pieces by path, of files that have more than one.

    `tree` is what `join_tree` gave, `sizes` are the bytes of every file by path, `piece` those of a
    piece. Return {} when the tree is of another length than these files'.
    """
    digests: dict[str, bytes] = {}
    at = 0
    for path, size in sorted(sizes.items()):
        count = piece_count(size, piece)
        if count > 1:
            digests[path] = tree[at : at + count * WIDTH]
            at += count * WIDTH
    return digests if at == len(tree) else {}


def note_fault(note: Any) -> str | None:
    """Say why a manifest's note of its tree is none, or None when it is one."""
    if not isinstance(note, dict) or type(note.get("bytes")) is not int or note["bytes"] < 1:
        return "has no proper size of its pieces"
    digest = note.get("blake3")
    if not isinstance(digest, str) or len(digest) != 2 * WIDTH:
        return "has no proper hash of its pieces' digests"
    return None
