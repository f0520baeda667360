"""Files that are named by themselves, as recipes and items are: read whole, within a bound."""

from __future__ import annotations

import os
from errno import ENOENT
from pathlib import Path

import blake3

from merge_ops.checkpoints.files.file_bounds import ITEM, MAX_ITEMS
from merge_ops.checkpoints.files.folder_door import RefusedFileError, open_regular
from merge_ops.checkpoints.files.strict_json import load_shallow_json
from merge_ops.errors import UnreadableFileError

_PIECE = 1 << 20


def read_bounded(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file.

    A pipe or a device is neither waited for nor read. Raises UnreadableFileError where there is no
    such file, or it has more than `most` bytes, also while it grows.
    """
    data = bytearray()
    try:
        descriptor = open_regular(path)
        try:
            while piece := os.read(descriptor, min(_PIECE, most + 1 - len(data))):
                data += piece
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # a name may hold a zero byte
        raise _unreadable(path, error) from error
    if len(data) > most:
        raise UnreadableFileError(f"has more than {most} bytes, which are the most that are read")
    return bytes(data)


def digest_of_file(path: Path) -> str:
    """Return the BLAKE3 of a regular file of any size. Raises UnreadableFileError like others."""
    hasher = blake3.blake3()
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as opened:
            while piece := opened.read(_PIECE):
                hasher.update(piece)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return hasher.hexdigest()


class StrangersFiles:
    """Strangers' files are the files that a suite names: regular ones, read within bounds."""

    def items(self, path: Path) -> bytes:
        """Return the bytes of a file of items. Raises OSError, FileNotFoundError among it."""
        try:
            return read_bounded(path, MAX_ITEMS)
        except UnreadableFileError as error:
            if error.errno == ENOENT:
                raise FileNotFoundError(ENOENT, "No such file or directory", str(path)) from error
            raise

    def value(self, text: bytes) -> object:
        """Return the value of one line of JSON. Raises ValueError and nothing else."""
        return load_shallow_json(text, one_value_each=True, bound=ITEM)

    def digest(self, path: Path) -> str:
        """Return the blake3 of a file of any size. Raises OSError."""
        return digest_of_file(path)


def _unreadable(path: Path, error: Exception) -> UnreadableFileError:
    """What is wrong with a file, without its name, which whoever asked tells."""
    if isinstance(error, RefusedFileError):
        reason = str(error).removeprefix(f"{path} ")
    elif isinstance(error, OSError):
        reason = f"cannot be read ({error.strerror or error})"
    else:
        reason = f"cannot be read ({error})"
    told = UnreadableFileError(reason)
    told.errno = error.errno if isinstance(error, OSError) else None
    return told
