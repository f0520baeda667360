"""Programs of ours that are killed, or stopped, while they work: forks of one template.

A process of its own would take some four seconds of CPU time to import what they need. What these
do, and what a signal does to them, is the same; what a start does is tested elsewhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO

from tests.child_forks import PYTHON, Fork, Template, begin_script, run_script
from tests.servers.waiting import HANG_SECONDS

TEMPLATE = Template(PYTHON, ("orchestration.definitions", "orchestration.commands.refresh_command"))
BEGINNING = """
import tempfile
from tests.child_forks import fork_children
tempfile.tempdir = None  # the template's
fork_children()
"""


def run_program(
    text: str, folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> CompletedProcess[str]:
    """Run a program to its end; its file goes into `folder`. All that it printed is `stderr`."""
    command = [_written(text, folder), *arguments]
    return run_script(TEMPLATE, command, _whole(environment), HANG_SECONDS)


def begin_program(
    text: str, folder: Path, *arguments: str, printed: IO[bytes], environment: Mapping[str, str]
) -> Fork:
    """Begin a program; what it prints goes into that file."""
    command = [_written(text, folder), *arguments]
    return begin_script(TEMPLATE, command, _whole(environment), printed)


def _written(text: str, folder: Path) -> Path:
    path = folder / "program.py"
    path.write_text(BEGINNING + text, encoding="utf-8")
    return path


def _whole(environment: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(environment or {})}
