"""Copies that killed processes left half-pulled or half-dropped in a cache of artifacts."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path


def remove_dead_copies(cache: Path) -> int:
    """Remove from the cache in a folder what no living process pulls or drops; return how many.

    A copy is being pulled by whoever holds its lock, which ends with that process.
    """
    removed = 0
    for folder in _folders(cache / "pulling"):
        with contextlib.suppress(OSError):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            lock = os.open(cache / "locks" / folder.name, flags, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
            finally:
                os.close(lock)
    for folder in _folders(cache / "dropping"):  # nobody reads these; some may be going just now
        shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


def _folders(place: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(each for each in place.iterdir() if each.is_dir() and not each.is_symlink())
    return []
