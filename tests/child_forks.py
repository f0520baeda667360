"""Limited children of tests: forked from a template, so that they start in milliseconds.

A child that asks transformers imports torch and transformers first, 4.5 seconds of CPU time, and
the tests start more than a hundred of them. Here a clean template (child_template.py) has imported
them, and each child is a fork of it that then limits itself by the product's own program. One
template serves all processes of a test run. The tests of the child itself, and all programs that
tests start by their own name, start it as users do.
"""

import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from merge_ops.children import limited_child
from merge_ops.children.model_view import HIDDEN

PYTHON = str(Path(sys.prefix) / "bin" / "python")
"""One name for the interpreter: Dagster calls it python3.11, and each name has its own template."""
PROGRAM = Path(__file__).with_name("child_template.py")
OWNER = "TESTS_OF_RONGHE"
"""The process whose end ends the templates, and their folder; every process of the tests has it."""
IMPORTS = (
    "accelerate", "safetensors.torch", "torch", "transformers", "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2", "transformers.core_model_loading", "tokenizers",
)  # fmt: skip
_real = getattr(limited_child.start_program, "real", limited_child.start_program)


class Fork:
    """What limited_child asks of a subprocess.Popen, of a fork of the template."""

    def __init__(self, process: int, stdin: int, stdout: int, status: int) -> None:
        self.pid = process
        self.stdin = cast("IO[bytes]", os.fdopen(stdin, "wb"))
        self.stdout = cast("IO[bytes]", os.fdopen(stdout, "rb"))
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """Return the status, where it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the status."""
        found = self._look(timeout)
        if found is None:
            raise subprocess.TimeoutExpired("a limited child", timeout or 0)
        return found

    def kill(self) -> None:
        """Kill it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self) -> None:
        """Close its pipes and wait for its end."""
        for each in (self.stdin, self.stdout):
            with suppress(BrokenPipeError):
                each.close()
        self.wait()

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and _tells(self._status, timeout):
            told = os.read(self._status, 16)
            self.returncode = int(told) if told else -signal.SIGKILL
            os.close(self._status)
        return self.returncode


def forked_program(
    given: Mapping[str, Any], printed: IO[bytes], environment: Mapping[str, str], home: Path
) -> Any:
    """Fork the child's program from a template where it is one that asks transformers."""
    if "HF_DATASETS_CACHE" in environment or "HF_HUB_CACHE" in environment:
        return _real(given, printed, environment, home)  # read where they are imported
    if given["cuda"] or tuple(given["hidden"]) != HIDDEN or OWNER not in os.environ:
        return _real(given, printed, environment, home)
    files = [os.pipe() for _ in range(2)]
    (child_in, to), (back, child_out) = files
    theirs = (child_in, child_out, printed.fileno(), given["lifeline"])
    asked = {"given": dict(given), "environment": dict(environment), "home": str(home)}
    process, status = _fork(template_of_children(environment), asked, theirs)
    for each in (child_in, child_out):
        os.close(each)
    return Fork(process, to, back, status)


@dataclass(frozen=True)
class Template:
    """A clean process of a Python that has imported modules, while it found no hidden package.

    `variables` are those of its environment that are read where a module is imported.
    """

    python: str
    imports: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    def socket(self) -> Path:
        """Return where it listens; it is started where it is not there."""
        owner, folder = os.environ[OWNER].split(":", 1)
        place = Path(folder) / hashlib.sha256(repr(self).encode()).hexdigest()[:16]
        if not place.exists():
            with place.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not place.exists():
                    self._start(place, int(owner))
        return place

    def _start(self, place: Path, owner: int) -> None:
        given = {"socket": str(place), "owner": owner, "hidden": self.hidden}
        given |= {"root": str(limited_child.ROOT), "imports": self.imports}
        with place.with_suffix(".log").open("wb") as printed:
            started = subprocess.Popen(
                [self.python, "-I", "-X", "utf8", str(PROGRAM), json.dumps(given)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env={
                    **limited_child._environment(Path("/nonexistent"), cuda=False),
                    **dict(self.variables),
                },
                start_new_session=True,
            )
        while not place.exists():
            if started.poll() is not None:
                raise RuntimeError(f"a template ended: {place.with_suffix('.log').read_text()}")
            time.sleep(0.05)
        started.returncode = 0  # it outlives whoever started it: no warning that it runs


def template_of_children(environment: Mapping[str, str] | None = None) -> Template:
    """Return what a limited child with this environment, as a rule the usual one, is a fork of."""
    if environment is None:
        environment = limited_child._environment(Path("/nonexistent"), cuda=False)
    return Template(PYTHON, IMPORTS, HIDDEN, _of_arithmetic(environment))


def run_script(
    template: Template, command: Sequence[object], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a script (its path and arguments) in a fork of a template; what it printed is stderr."""
    with tempfile.TemporaryFile() as printed:
        fork = begin_script(template, command, environment, printed)
        try:
            status = fork.wait(timeout)
        finally:
            fork.kill()
            fork.communicate()
        printed.seek(0)
        text = printed.read().decode("utf-8", "replace")
        return subprocess.CompletedProcess([str(each) for each in command], status, "", text)


def begin_script(
    template: Template,
    command: Sequence[object],
    environment: Mapping[str, str],
    printed: IO[bytes],
) -> Fork:
    """Begin a script in a fork of a template; what it prints goes into that file."""
    asked = {"command": [str(each) for each in command], "environment": dict(environment)}
    asked |= {"home": str(limited_child.ROOT)}
    with open(os.devnull, "rb") as nothing:
        said = printed.fileno()
        process, status = _fork(template, asked, (nothing.fileno(), said, said, nothing.fileno()))
    stdin, stdout = os.open(os.devnull, os.O_WRONLY), os.open(os.devnull, os.O_RDONLY)
    return Fork(process, stdin, stdout, status)


def _fork(template: Template, asked: Mapping[str, Any], files: Sequence[int]) -> tuple[int, int]:
    """Return the number of a fork with these four files, and the pipe that tells its status."""
    status, told = os.pipe()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(template.socket()))
            except ConnectionRefusedError:  # it was killed, with all that some test killed
                template.socket().unlink(missing_ok=True)
                connection.connect(str(template.socket()))
            socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], [*files, told])
            return int(connection.makefile("rb").readline()), status
    finally:
        os.close(told)


def _of_arithmetic(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    prefixes = limited_child._PASSED_PREFIXES
    return tuple(sorted((k, v) for k, v in environment.items() if k.startswith(prefixes)))


def _tells(pipe: int, timeout: float | None) -> bool:
    """Return whether a pipe has something to read; its number may be past what select knows."""
    watched = select.poll()
    watched.register(pipe, select.POLLIN)
    return bool(watched.poll(None if timeout is None else timeout * 1000))


def forking_environment() -> dict[str, str]:
    """Variables with which a Python of ours that tests start has forked children, too.

    For tests of what processes do that must be real, and not of how they start children.
    """
    paths = [str(limited_child.ROOT), str(Path(__file__).with_name("forking"))]
    known = (OWNER, "OMP_NUM_THREADS")
    passed = {name: os.environ[name] for name in known if name in os.environ}
    return {**passed, "PYTHONPATH": os.pathsep.join(paths)}


def fork_children() -> None:
    """Have this process, and those forked from it, fork their limited children."""
    limited_child.start_program = forked_program


def begin_template() -> subprocess.Popen[bytes]:
    """Start the template that most children are forks of, beside other work; ends when it is up."""
    root = str(limited_child.ROOT)
    return subprocess.Popen([sys.executable, "-m", "tests.child_forks"], cwd=root)


@contextmanager
def started_children() -> Iterator[None]:
    """Start limited children as users do, until the context ends."""
    forked, limited_child.start_program = limited_child.start_program, _real
    try:
        yield
    finally:
        limited_child.start_program = forked


if __name__ == "__main__":
    template_of_children().socket()
