"""Files that are read from many threads, of which a bounded number is open at a time.

Nine models of 163 shards are 1,467 files, and 1,024 may be open in a usual shell. So the limit is
raised as far as this user may, and beyond half of it the file that was not read for longest is
closed until it is read again. It must then still be the same file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator

MOST_OPEN = 4096
_LEAST_OPEN = 8
_HIGHEST_LIMIT = 65_536  # some systems allow a billion, and programs that close all take minutes
TOO_MANY = (errno.EMFILE, errno.ENFILE)


def raised_limit() -> int:
    """Raise this process's limit of open files as far as it may, and return it."""
    try:
        import resource
    except ImportError:  # no Unix
        return 512
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    high = _HIGHEST_LIMIT if hard == resource.RLIM_INFINITY else min(hard, _HIGHEST_LIMIT)
    if soft == resource.RLIM_INFINITY:
        return _HIGHEST_LIMIT
    if soft < high:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (high, hard))
            return high
    return soft


class OpenFiles:
    """A pool of open files; `most` of them at a time, and more only while more are read at once."""

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._idle: OrderedDict[int, PooledFile] = OrderedDict()  # the longest unread first
        self._lock = threading.RLock()
        self._open = 0

    @property
    def open_count(self) -> int:
        """Return how many files are open now."""
        return self._open

    @property
    def most(self) -> int:
        """Return how many files may be open: by default half of what the process may have."""
        if self._most is None:
            self._most = max(_LEAST_OPEN, min(MOST_OPEN, raised_limit() // 2))
        return self._most

    @contextlib.contextmanager
    def descriptor(self, file: PooledFile) -> Generator[int]:
        """Lend the descriptor of a file, opened if it is not; it stays open for the duration."""
        with self._lock:
            self._idle.pop(id(file), None)
            if file.opened < 0:
                file.opened = self._opened(file)
            file.users += 1
        try:
            yield file.opened
        finally:
            with self._lock:
                file.users -= 1
                if not file.users:
                    self._idle[id(file)] = file
                    if file.closed or self._open > self.most:
                        self._close(file if file.closed else self._longest_unread())

    def forget(self, file: PooledFile) -> None:
        """Close a file for good; one that is being read is closed after that."""
        with self._lock:
            file.closed = True
            if not file.users and file.opened >= 0:
                self._close(file)

    def _opened(self, file: PooledFile) -> int:
        while self._open >= self.most and self._idle:
            self._close(self._longest_unread())
        while True:
            try:
                descriptor = file.opener()
                break
            except OSError as error:
                if error.errno not in TOO_MANY or not self._idle:
                    raise
                self._close(self._longest_unread())
        self._open += 1
        try:
            file.check(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            self._open -= 1
            raise
        return descriptor

    def _longest_unread(self) -> PooledFile:
        return next(iter(self._idle.values()))

    def _close(self, file: PooledFile) -> None:
        self._idle.pop(id(file), None)
        os.close(file.opened)
        file.opened = -1
        self._open -= 1


POOL = OpenFiles()
"""The files of all models that this process reads."""


class PooledFile:
    """A file of a pool, opened at once and again when needed; `opener` returns a descriptor.

    Raises OSError where it cannot be opened, or is not the same file any more when it is opened
    again.
    """

    def __init__(self, path: str, opener: Callable[[], int], pool: OpenFiles = POOL) -> None:
        self.path = path
        self.opener = opener
        self.opened = -1
        self.users = 0
        self.closed = False
        self._pool = pool
        self._first: tuple[int, ...] | None = None
        with pool.descriptor(self):
            pass

    def preadv(self, buffer: memoryview, offset: int) -> int:
        """Read into `buffer` from `offset` and return the count of bytes; 0 at the file's end."""
        with self._pool.descriptor(self) as descriptor:
            return os.preadv(descriptor, [buffer], offset)

    def lent(self) -> contextlib.AbstractContextManager[int]:
        """Lend the descriptor; the file stays open for the duration."""
        return self._pool.descriptor(self)

    def stat(self) -> os.stat_result:
        """Return the status of the open file."""
        with self._pool.descriptor(self) as descriptor:
            return os.fstat(descriptor)

    def close(self) -> None:
        """Close the file."""
        self._pool.forget(self)

    def check(self, found: os.stat_result) -> None:
        """Raise OSError where a file that was opened again is another one."""
        state = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if self._first is not None and state != self._first:
            raise OSError(errno.ESTALE, "it changed while it was read", self.path)
        self._first = state
