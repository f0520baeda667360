"""Temporary folders that go with their process, and with the next command where it was killed.

Each holds a file that its process keeps locked. The kernel gives the lock back when the process
ends, however that happens; so a folder whose lock is free is nobody's, on any machine that sees it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # no Unix: such folders go at the end of their process alone
    fcntl = None

PREFIX = "ronghe-own-"
_LOCK = ".owner"
_BEGUN = ".owner-new"  # renamed once it is locked, so that a folder is never seen unlocked


class OwnFolder:
    """A temporary folder of this process, there until it is closed or the process ends."""

    def __init__(self, what: str) -> None:
        remove_ownerless()
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{what}-"))
        self._lock = os.open(self.path / _BEGUN, os.O_RDWR | os.O_CREAT, 0o600)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system that knows no locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (self.path / _BEGUN).rename(self.path / _LOCK)
        self._process = os.getpid()
        atexit.register(self.close)

    def close(self) -> None:
        """Remove the folder with everything in it."""
        if self._lock < 0 or os.getpid() != self._process:  # a fork's copy is not its owner
            return
        atexit.unregister(self.close)
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Path:
        """Return the folder's path."""
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the folder."""
        self.close()


def remove_ownerless() -> None:
    """Remove the folders of processes that were killed."""
    if fcntl is None:
        return
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or just removed by another process
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
