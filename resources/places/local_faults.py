"""What is wrong with a folder that is, or should be, the root of a store."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from resources.errors import (
    StoreAccessError,
    StoreAddressError,
    StoreError,
    StoreFailureError,
    StoreInterruptedError,
)

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK, errno.ESTALE, errno.ETIMEDOUT}
"""Of the machine or a mounted disk at this moment: they say nothing of the file."""


def root_fault(root: Path) -> str | None:
    """Return why `root` can be no folder: a file, or a dead link, on the way to it; None else."""
    for each in (root, *root.parents):
        if each.is_dir():
            return None
        if each.is_symlink():
            return f"{each} is a link to {os.readlink(each)}, which is no folder or is not there"
        if os.path.lexists(each):
            return f"{each} is no folder"
    return None


@contextlib.contextmanager
def translated(root: Path, doing: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that says where and what to do; a missing file passes."""
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except OSError as error:
        where = f"artifact store {root.as_uri()}: {doing} failed"
        if error.errno in _DENIED:
            raise StoreAccessError(
                f"{where}: {error.strerror}; this user needs to read and write {root}"
            ) from error
        if error.errno in _FULL:
            raise StoreFailureError(
                f"{where}: the disk or quota is full; free some space (the store's gc removes "
                f"abandoned attempts) and run again"
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR) and (why := root_fault(root)):
            raise StoreAddressError(
                f"{where}: {why}; mount its disk or mend it, or set RONGHE_STORE to another folder"
            ) from error
        kind = StoreInterruptedError if error.errno in _PASSING else StoreFailureError
        raise kind(f"{where}: {error.strerror or error}") from error
