"""Starting and killing the processes of `store_worker`.

`worker` is a fork, which starts in milliseconds; `program` a Python of its own, for what is read
where modules are imported, and for how a process ends.
"""

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO

from tests.forks import FORKS
from tests.resources.store_worker import WORKS
from tests.servers.waiting import HANG_SECONDS

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """A forked worker, and the pipe that it prints into."""

    def __init__(self, process: ForkServerProcess, printed: IO[str]) -> None:
        self._process, self.stdout = process, printed
        self.stderr = None
        """Its errors are among those of the tests."""

    @property
    def pid(self) -> int | None:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for its end."""
        self._process.join(HANG_SECONDS)


@contextlib.contextmanager
def worker(*arguments: str) -> Iterator[Worker]:
    """A worker in a fork; a warning makes it fail. It is killed on the way out."""
    ours, theirs = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_work, args=(arguments, dict(os.environ), theirs))
    process.start()
    theirs.close()
    with ours, open(ours.fileno(), encoding="utf-8", closefd=False) as printed:
        try:
            yield Worker(process, printed)
        finally:
            process.kill()
            process.join()
            process.close()


def _work(arguments: tuple[str, ...], environment: Mapping[str, str], into: Connection) -> None:
    os.dup2(into.fileno(), 1)
    into.close()
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    warnings.simplefilter("error")
    what, *rest = arguments
    WORKS[what](*rest)


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker in a Python of its own; `-W error` makes it fail on warnings. It is killed, too."""
    command = [sys.executable, "-W", "error", "-m", "tests.resources.store_worker", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str] | Worker) -> str:
    """The worker's next line; its errors when it has ended instead."""
    assert process.stdout is not None
    text = process.stdout.readline().strip()
    if not text:
        said = process.stderr.read() if process.stderr else "its errors are above"
        raise AssertionError(f"the worker ended: {said}")
    return text
