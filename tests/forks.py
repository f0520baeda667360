"""Processes forked from one server that has the heavy imports: they start in milliseconds.

Where workers run the tests, the server is a fork of the first process, which has imported all that
already, and all workers share it. Else it starts when the first process is wanted. It has the
environment of that moment, and lives as long as the test run. What a process must see of a later
environment is handed to it.
"""

import atexit
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

from tests.child_forks import fork_children
from tests.servers.waiting import HANG_SECONDS

PRELOADED = [
    "torch",
    "tests.merges.merge_processes",
    "orchestration.commands.merging.merge_command",
    "orchestration.refreshing.refresh",
]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(PRELOADED)

fork_children()  # of commands, too: the server imports this module


def begin_server() -> None:
    """Have this process and its forks share a server that is a fork of this process.

    It ends when the last of them has. This process must have no thread, and capture no output.
    """
    for name in PRELOADED:
        import_module(name)
    resource_tracker.ensure_running()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # Linux picks a name that is no file's
    listener.listen(64)
    alive, held = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if not os.fork():
        os.close(held)
        _serve(listener.detach(), alive)
    os.close(alive)
    server: Any = forkserver._forkserver
    server._forkserver_address = listener.getsockname()
    server._forkserver_alive_fd = held
    server.ensure_running = resource_tracker.ensure_running  # a fork of it cannot wait for it
    listener.close()


def _serve(listener: int, alive: int) -> NoReturn:
    """Fork what is asked for; what forks say goes where errors go."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    try:
        forkserver.main(listener, alive, [])
    finally:
        os._exit(0)


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
