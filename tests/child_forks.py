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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from merge_ops.children import limited_child
from merge_ops.children.model_view import HIDDEN

PROGRAM = Path(__file__).with_name("child_template.py")
OWNER = "RONGHE_TESTS_OWNER"
"""The process whose end ends the templates, and a name of its own; forked commands inherit it."""
_IMPORTS = {
    HIDDEN: (
        "accelerate", "safetensors.torch", "torch", "transformers", "transformers.modeling_utils",
        "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
        "transformers.models.qwen2.modeling_qwen2", "transformers.models.qwen2",
        "transformers.core_model_loading", "tokenizers",
    ),
    (): ("torch",),
}  # fmt: skip
_real = limited_child.start_program


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
            try:
                each.close()
            except BrokenPipeError:
                pass
        self.wait()

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            told = os.read(self._status, 16)
            self.returncode = int(told) if told else -signal.SIGKILL
            os.close(self._status)
        return self.returncode


def forked_program(
    given: Mapping[str, Any], printed: IO[bytes], environment: Mapping[str, str], home: Path
) -> Any:
    """Fork the child's program from a template; start it where none has what it asks for."""
    kind = tuple(given["hidden"])
    if "HF_DATASETS_CACHE" in environment or "HF_HUB_CACHE" in environment:
        return _real(given, printed, environment, home)  # read where they are imported
    same = all(
        os.environ.get(name) == value
        for name, value in environment.items()
        if name.startswith(("OMP_", "MKL_", "ATEN_"))
    )
    if given["cuda"] or kind not in _IMPORTS or not same or OWNER not in os.environ:
        return _real(given, printed, environment, home)
    files = [os.pipe() for _ in range(3)]  # input, output, status
    (child_in, to), (back, child_out), (status, told) = files
    theirs = [child_in, child_out, printed.fileno(), given["lifeline"], told]
    asked = {"given": dict(given), "environment": dict(environment), "home": str(home)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(_template(kind)))
        socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], theirs)
        process = int(connection.makefile("rb").readline())
    for each in (child_in, child_out, told):
        os.close(each)
    return Fork(process, to, back, status)


def _template(kind: tuple[str, ...]) -> Path:
    """Return the socket of the template of a kind, which is started where it is not there."""
    owner = os.environ[OWNER]
    name = hashlib.sha256("\0".join((owner, str(PROGRAM), *kind)).encode()).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"ronghe-tests-{os.getuid()}-{name}"
    if place.exists():
        return place
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            given = {
                "root": str(limited_child.ROOT), "socket": str(place), "owner": int(owner.split(".")[0]),
                "hidden": kind, "imports": _IMPORTS[kind],
            }  # fmt: skip
            started = subprocess.Popen(
                [sys.executable, "-I", "-X", "utf8", str(PROGRAM), json.dumps(given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=limited_child._environment(Path("/nonexistent"), cuda=False),
                start_new_session=True,
            )
            while not place.exists():
                assert started.poll() is None, "the template of limited children ended"
                select.select([], [], [], 0.05)
            started.returncode = 0  # it outlives whoever started it: no warning that it runs
    return place


def fork_children() -> None:
    """Have this process, and those forked from it, fork their limited children."""
    limited_child.start_program = forked_program


@contextmanager
def started_children() -> Iterator[None]:
    """Start limited children as users do, until the context ends."""
    forked, limited_child.start_program = limited_child.start_program, _real
    try:
        yield
    finally:
        limited_child.start_program = forked
