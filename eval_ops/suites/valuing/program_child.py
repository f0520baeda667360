"""What the child that runs a model's programs is asked: does this one run to its end?

The child is started by assets/work, one for each program, with limits of memory, CPU time and files
and without a network (merge_ops/children); nothing of it is imported here. On top of that the
program may not start processes, signal others, load foreign libraries, or touch what lies outside
its own folder: an audit hook refuses it. A program that leaves early has not passed.
"""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

_REFUSED = (
    "ctypes.", "os.kill", "os.killpg", "os.chmod", "os.chown", "os.link", "os.symlink",
    "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.putenv", "shutil.", "signal.",
    "pty.", "sqlite3.", "winreg.", "fcntl.", "mmap.",
)  # fmt: skip
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def answer(request: Mapping[str, Any], tell: Callable[[Any], None]) -> dict[str, Any]:
    """Run the program `request["program"]`, and say whether it ended without an error."""
    program = str(request["program"])
    sys.stdin = io.StringIO()
    printed = io.StringIO()
    _refuse(os.getcwd())
    passed = False
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(compile(program, "<answer>", "exec"), {"__name__": "__main__"})
            passed = True
        except BaseException:  # SystemExit too: its tests were not reached
            passed = False
    return {"passed": passed}


def _refuse(home: str) -> None:
    """Refuse from here on what no small program needs."""

    def look(event: str, given: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED):
            raise PermissionError(f"{event} is not done by programs under test")
        if event == "open":
            path, _, flags = given
            inside = isinstance(path, str) and os.path.realpath(path).startswith(home + os.sep)
            if isinstance(flags, int) and flags & _WRITES and not inside:
                raise PermissionError("files are written in the program's own folder alone")

    sys.addaudithook(look)
