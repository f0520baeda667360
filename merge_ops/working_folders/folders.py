"""Working folders: unfinished output and temporary copies, each with an owner who can be looked up.

    <place>/ronghe-work-<id>/owner   locked (`flock`) by the process that works here; who that is
    <place>/ronghe-work-<id>/…       what it works on

A lock ends with its process, however that ends. So a folder whose lock can be taken is nobody's,
and is removed by whoever makes the next one in that place; one whose lock is held is left alone.
Nothing is told from names, times or process ids.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Generator
from pathlib import Path

PREFIX = "ronghe-work-"
HIDDEN = f".{PREFIX}"  # beside an output, where people look at what is there
OWNER = "owner"
SET_ASIDE, GOES_BACK = "set-aside", "goes-back-to"
"""An old result that waits until the new one has its place, and a file with the name of that place.
Of a process that died between the two, the old result is put back."""

_living: dict[Path, tuple[int, int]] = {}  # folders, descriptors of their locks, their process


@contextlib.contextmanager
def working_folder(place: Path | None = None) -> Generator[Path]:
    """Make an empty folder in `place` (default: the folder for temporary files) until the end.

    In a `place` its name is hidden. What dead processes left there is removed first. Raises OSError
    where the folder cannot be made.
    """
    folder = make_working_folder(place)
    try:
        yield folder
    finally:
        try:
            remove_working_folder(folder)
        except BaseException:  # a signal came while it was removed
            remove_working_folder(folder)
            raise


def make_working_folder(place: Path | None = None) -> Path:
    """Make a working folder in `place` that its maker removes. Raises OSError."""
    prefix = PREFIX if place is None else HIDDEN
    place = Path(tempfile.gettempdir()) if place is None else place
    sweep(place)
    while True:
        folder = place / f"{prefix}{uuid.uuid4().hex[:12]}"
        folder.mkdir(mode=0o777 if prefix == HIDDEN else 0o700)
        lock = _owned(folder)
        if lock is not None:
            _living[folder] = (lock, os.getpid())
            return folder


def remove_working_folder(folder: Path) -> None:
    """Remove a working folder of this process and all that is in it."""
    lock, owner = _living.pop(folder, (-1, os.getpid()))
    if owner == os.getpid():  # what a fork knows of is its parent's
        shutil.rmtree(folder, ignore_errors=True)
    if lock >= 0:
        os.close(lock)


def remove_all() -> None:
    """Remove every working folder of this process, which ends now."""
    for folder, (_, owner) in list(_living.items()):
        if owner == os.getpid():
            _give_back(folder)
        remove_working_folder(folder)


def sweep(place: Path | None = None) -> list[Path]:
    """Remove the working folders in `place` whose processes are gone, and return them.

    Only folders of this user count. Where the file system has no locks nothing can be known, and
    nothing is removed.
    """
    place = Path(tempfile.gettempdir()) if place is None else place
    try:
        with os.scandir(place) as entries:
            names = [each.name for each in entries if each.name.startswith((PREFIX, HIDDEN))]
    except OSError:
        return []
    return [place / name for name in sorted(names) if _removed(place / name)]


def _owned(folder: Path) -> int | None:
    """Take the lock of a folder that was just made; None where a sweep was first."""
    try:
        lock = os.open(folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_file(lock, folder / OWNER):
            os.close(lock)
            return None
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            os.close(lock)
            raise
    os.write(lock, json.dumps(whoami(), ensure_ascii=False).encode(errors="replace"))
    return lock


def whoami() -> dict[str, str | int]:
    """Return who this process is, for people who find what it holds."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "command": command[:200],
        "since": since,
    }


def _removed(folder: Path) -> bool:
    """Remove a folder of this user that nobody works in; returns whether that was so."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        lock = os.open(folder / OWNER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        with contextlib.suppress(OSError):  # between two steps of its maker, which makes another
            folder.rmdir()
            return True
        return False
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_file(lock, folder / OWNER):
            return False
        _give_back(folder)
        _empty(folder)
    except OSError:
        return False
    finally:
        os.close(lock)
    return not folder.exists()


def _empty(folder: Path) -> None:
    """Remove a folder, its owner file last: a sweep that is killed too can be gone on with."""
    with os.scandir(folder) as entries:
        others = [each for each in entries if each.name != OWNER]
    for each in others:
        if each.is_dir(follow_symlinks=False):
            shutil.rmtree(each.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.unlink(each.path)
    shutil.rmtree(folder, ignore_errors=True)


def _give_back(folder: Path) -> None:
    """Put an old result back whose place stayed empty."""
    aside = folder / SET_ASIDE
    with contextlib.suppress(OSError, UnicodeError):
        target = Path(os.fsdecode((folder / GOES_BACK).read_bytes()))
        if aside.is_dir() and not aside.is_symlink() and target.parent == folder.parent:
            aside.rename(target)  # fails where something is there by now


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
