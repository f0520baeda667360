"""What killed commands left on this machine outside the store: temporary folders, semaphores."""

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from merge_ops.working_folders import sweep

SHARED = Path("/dev/shm")
_PROC = Path("/proc")
OLD = 3600.0  # seconds; a semaphore that nobody has mapped for so long was forgotten


def remove_leftovers() -> list[Path]:
    """Remove what no living process uses, and return it."""
    return [*sweep(), *_removed_semaphores()]


def _removed_semaphores() -> Iterator[Path]:
    """Semaphores of this user's Python programs that no process has mapped.

    multiprocessing removes them at its end, but for a kill of all of its processes at once. Where
    one of this user's processes cannot be looked at, nothing is known, and all stay.
    """
    there = [each for each in _semaphores() if time.time() - each.stat().st_mtime > OLD]
    mapped = _mapped_files() if there else None
    for path in there if mapped is not None else ():
        with contextlib.suppress(OSError):
            if mapped is not None and path.stat().st_ino not in mapped:
                path.unlink()
                yield path


def _semaphores() -> list[Path]:
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for path in sorted(SHARED.glob("sem.mp-*")):
            state = path.lstat()
            if stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid():
                found.append(path)
    return found


def _mapped_files() -> set[int] | None:
    """Inodes of what this user's processes have mapped as semaphores; None where one is silent.

    Whoever made one has it mapped under the name that it had at first.
    """
    mapped: set[int] = set()
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if folder.stat().st_uid == os.geteuid():
                lines = (folder / "maps").read_text(errors="replace").splitlines()
                prefix = str(SHARED / "sem.")
                mapped |= {int(line.split()[4]) for line in lines if prefix in line}
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            if _may_be_python(folder):
                return None
    return mapped


def _may_be_python(folder: Path) -> bool:
    try:
        return b"python" in (folder / "cmdline").read_bytes()
    except OSError:
        return True
