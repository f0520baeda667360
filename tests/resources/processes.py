"""Starting and killing the processes of `store_worker`."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def worker(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A worker; `-W error` makes it fail on warnings. It is killed on the way out."""
    command = [sys.executable, "-W", "error", "-m", "tests.resources.store_worker", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The worker's next line; its errors when it has ended instead."""
    assert process.stdout is not None
    assert process.stderr is not None
    text = process.stdout.readline().strip()
    if not text:
        raise AssertionError(f"the worker ended: {process.stderr.read()}")
    return text
