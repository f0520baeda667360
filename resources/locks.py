"""Locks of files (`flock`), and who holds one: nobody waits for a lock without a word.

A lock ends with its process. So one that is held for long belongs to a process that is at work, or
that stands still; either way people are told which it is, and decide.
"""

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from resources.errors import StoreLockedError

TOLD_AFTER, TOLD_AGAIN = 2.0, 60.0  # seconds of waiting; see docs/timeouts.md
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.25
_PROC = Path("/proc")

log = logging.getLogger("ronghe.waiting")
"""Says what is waited for, and for whom."""


@contextlib.contextmanager
def opened_lock(path: Path) -> Iterator[int]:
    """Open the file of a lock, made where it is not there; yields its descriptor.

    It is opened so that a pipe in its place is not waited for.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def take_lock(
    descriptor: int, path: Path, what: str, shared: bool = False, patience: float | None = None
) -> None:
    """Take the lock of the open file `descriptor` at `path`, waiting as long as another has it.

    After two seconds the holder is logged, and again each minute. Raises StoreLockedError where it
    takes longer than `patience` seconds, for locks that are held for moments only.
    """
    wanted = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    began, pause, told = time.monotonic(), _FIRST_PAUSE, TOLD_AFTER
    while True:
        try:
            fcntl.flock(descriptor, wanted)
            return
        except BlockingIOError:
            waited = time.monotonic() - began
            if patience is not None and waited > patience:
                raise StoreLockedError(
                    f"{what}: {path} is locked by {holder_of(path)}, for more than"
                    f" {patience:.0f} s now; let it go on, or end it, and run again"
                ) from None
            if waited > told:
                log.warning("waiting for %s: %s is locked by %s", what, path, holder_of(path))
                told += TOLD_AGAIN
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)


def holder_of(path: Path) -> str:
    """Say who holds the lock of a file, as far as this machine knows."""
    with contextlib.suppress(OSError, ValueError):
        found = path.stat()
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in (_PROC / "locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == device:
                return process_text(int(fields[4]))
    return "a process that this machine does not see (another machine, or another container)"


def process_text(pid: int) -> str:
    """Say which process this is: its number, command and start, and whether it stands still."""
    folder = _PROC / str(pid)
    with contextlib.suppress(OSError, ValueError, IndexError):
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        named = (Path(word).name if "/" in word else word for word in words if word)
        command = " ".join(" ".join(named).split())
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        up = float((_PROC / "uptime").read_text().split()[0])
        began = time.time() - up + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))
        still = f" and stands still (`kill -CONT {pid}` lets it go on)" if fields[0] in "Tt" else ""
        return f"process {pid} (`{command[:120]}`), which runs since {since}{still}"
    return f"process {pid}"
