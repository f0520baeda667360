"""Processes forked from one server that has the heavy imports: they start in milliseconds.

Where workers run the tests all share one server, which starts before they do. Else it starts when
the first process is wanted. It has the environment of that moment, and lives as long as the test
run. What a process must see of a later
environment is handed to it.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

from tests.child_forks import fork_children
from tests.servers.waiting import HANG_SECONDS

PRELOADED = [
    "torch",
    "tests.merges.merge_processes",
    "orchestration.commands.merging.merge_command",
    "orchestration.refreshing.refresh",
]
FORKS = multiprocessing.get_context("forkserver")
FORKS_SERVER: Any = forkserver._forkserver
FORKS.set_forkserver_preload(PRELOADED)

fork_children()  # of commands, too: the server imports this module


def begin_server() -> None:
    """Start the server, for this process and its forks.

    It is a Python of its own and no fork: what this process has imported has read the environment
    of the tests, and a Hub's address, say, is read once. It ends when the last of them has.
    """
    FORKS_SERVER.ensure_running()
    resource_tracker.ensure_running()
    FORKS_SERVER.ensure_running = resource_tracker.ensure_running  # a fork cannot wait for it


def run_forked(
    arguments: list[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `ronghe` in a forked process, in a folder, with this environment and no other.

    Nothing of Ronghe has run in it before, but its modules and torch are imported already: what
    start-up costs, and what it imports, must be tested in a process of its own.
    """
    with tempfile.TemporaryDirectory() as outputs:
        paths = [Path(outputs) / name for name in ("stdout", "stderr")]
        process = FORKS.Process(
            target=_ronghe, args=(arguments, folder, dict(environment), list(map(str, paths)))
        )
        process.start()
        process.join(HANG_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, HANG_SECONDS)
        out, err = (path.read_text(encoding="utf-8") for path in paths)
        return subprocess.CompletedProcess(["ronghe", *arguments], process.exitcode, out, err)


def _ronghe(
    arguments: list[str], folder: Path, environment: dict[str, str], outputs: list[str]
) -> None:
    for number, path in enumerate(outputs, start=1):
        written = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(written, number)
        os.close(written)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["ronghe", *arguments]
    atexit._clear()  # the server's; a process of multiprocessing would run none at all
    try:
        from orchestration.commands.cli import main

        main()
    finally:
        atexit._run_exitfuncs()
