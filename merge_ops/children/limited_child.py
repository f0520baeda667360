"""A child process for work that strangers' files ask of foreign code: limited, and alone.

Pickles, tokenizers and models that are built and run are such work. The child has nothing of our
environment but what arithmetic and the loader of libraries need, a folder of its own as HOME and
TMPDIR, no network, and limits of memory, CPU time, open files and file size (child_program.py sets
them). It ends with its parent, whatever ends that. Whatever ends the child itself is one
`ChildEndedError` of the one model that it worked on; whoever asks next gets a new child.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

from merge_ops.children.closing import ClosedAtEnd
from merge_ops.children.own_folders import OwnFolder
from merge_ops.errors import ChildEndedError, ChildRaisedError

PROGRAM = Path(__file__).with_name("child_program.py")
ROOT = PROGRAM.parents[2]
OPEN_FILES = 4096
FILE_BYTES = 64 << 20
ENDING = 10.0  # seconds; see docs/timeouts.md
MOST_ANSWER = 1 << 30  # bytes of one line; the scores of 10 million answers take less
_TAIL = 16 << 10  # bytes of what the child printed last, where its reason stands
_A_DAY = 24 * 3600
_PASSED_ON = (
    "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "SYSTEMROOT",
)  # fmt: skip
# What changes numbers or threads, and is no secret:
_PASSED_PREFIXES = ("OMP_", "MKL_", "KMP_", "GOMP_", "ATEN_", "ONEDNN_", "DNNL_", "OPENBLAS_")
_CUDA_PREFIXES = ("CUDA_", "NVIDIA_", "CUBLAS_")
_OUT_OF_MEMORY = (b"memory allocation of", b"bad_alloc", b"MemoryError", b"Cannot allocate memory")

Tell = Callable[[Mapping[str, Any]], None]


class LimitedChild(ClosedAtEnd):
    """A child that answers requests by `answer(request, tell)` of a module, one after the other.

    `module` is imported in the child alone. `memory` (bytes of data), `cpu_seconds`, `open_files`
    and `file_bytes` are its limits; a request may bring others of memory and CPU time. Variables of
    `environment` are added to the few that a child has; with `cuda` it may see GPUs, and packages
    that are `hidden` are for it as if they were not installed. It is started by the first request,
    and again by the next one after it ended; `starts` counts. Several threads may ask: one waits
    for the other.
    """

    def __init__(
        self,
        module: str,
        *,
        memory: int,
        cpu_seconds: int,
        open_files: int = OPEN_FILES,
        file_bytes: int = FILE_BYTES,
        environment: Mapping[str, str] | None = None,
        cuda: bool = False,
        hidden: Sequence[str] = (),
    ) -> None:
        self.starts = 0
        self._module = module
        self._limits = {
            "memory": memory,
            "cpu_seconds": cpu_seconds,
            "open_files": open_files,
            "file_bytes": file_bytes,
        }
        self._settings = {"cuda": cuda, "hidden": list(hidden)}
        self._environment = dict(environment or {})
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def ask(
        self,
        request: Mapping[str, Any],
        doing: str,
        *,
        module: str | None = None,
        memory: int | None = None,
        cpu_seconds: int | None = None,
        tell: Tell | None = None,
        view: str | None = None,
    ) -> dict[str, Any]:
        """Return the child's answer to a request.

        `doing` says what it does, after "the child that": `reads pickles of model X`. `tell` is
        called with what it tells on the way. With `view`, the module is given a view of the model's
        folder that this entry of the request names (model_view.py). Raises ChildEndedError where it
        ended instead, ChildRaisedError where its module raised an exception.
        """
        limits = {**self._limits}
        limits |= {"memory": memory} if memory is not None else {}
        limits |= {"cpu_seconds": cpu_seconds} if cpu_seconds is not None else {}
        named = {"module": module or self._module, "view": view}
        sent = {**named, "request": dict(request), **limits}
        with self._lock:
            running = self._started()
            answered = False
            try:
                answer = running.ask(sent, tell)
                answered = "ended" not in answer
            finally:  # also where somebody pressed Ctrl-C: half an answer is none
                if not answered:
                    self._close()
        if not answered:
            raise ChildEndedError(doing, _cause_told(answer, limits))
        if "raised" in answer:
            raise ChildRaisedError(doing, str(answer["raised"]), str(answer["why"]))
        return cast(dict[str, Any], answer["answer"])

    def start(self) -> None:
        """Start the child now, so that a first request finds it there."""
        with self._lock:
            self._started()

    def _started(self) -> _Running:
        if self._running is not None and not self._running.has_home:
            self._close()
        if self._running is None or not self._running.is_mine:
            self._running = _Running(self._limits, self._environment, self._settings)
            self.starts += 1
        return self._running

    def close(self) -> None:
        """End the child and remove its folder; a later request starts another."""
        with self._lock:
            self._close()

    def kill(self) -> None:
        """End the child at once, from any thread; whoever waits for its answer is told."""
        running = self._running
        if running is not None:
            running.kill()

    def _close(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.close()


class _Running:
    """One process, from its start to its end."""

    def __init__(
        self,
        limits: Mapping[str, int],
        environment: Mapping[str, str],
        settings: Mapping[str, Any],
    ) -> None:
        self._owner = os.getpid()
        self._folder = OwnFolder()
        home = self._folder.path
        self._printed = home / "printed"
        lifeline, self._lifeline = os.pipe()  # its other end falls with this process
        given = {**settings, "limits": dict(limits), "root": str(ROOT), "lifeline": lifeline}
        known = {**_environment(home, settings["cuda"]), **environment}
        try:
            with self._printed.open("ab") as printed:
                self._process = start_program(given, printed, known, home)
        except BaseException:
            os.close(self._lifeline)
            self._folder.close()
            raise
        finally:
            os.close(lifeline)

    @property
    def is_mine(self) -> bool:
        """Return whether this process started it: a fork's copy has no child."""
        return self._owner == os.getpid()

    @property
    def has_home(self) -> bool:
        """Return whether its folder is there, which a cleaner of temporary files may have taken."""
        return self._folder.path.is_dir()

    def ask(self, sent: Mapping[str, Any], tell: Tell | None) -> dict[str, Any]:
        """Return what the child answers: `answer`, `raised` or `ended`."""
        to, back = cast("tuple[IO[bytes], IO[bytes]]", (self._process.stdin, self._process.stdout))
        try:
            to.write(json.dumps(sent).encode() + b"\n")
            to.flush()
            while line := back.readline(MOST_ANSWER):
                if not line.endswith(b"\n"):
                    return self._end()
                answer = json.loads(line)
                if "told" not in answer:
                    return answer
                if tell is not None:
                    tell(answer["told"])
        except (BrokenPipeError, ConnectionError):
            pass
        except (ValueError, RecursionError, TypeError):
            return {"ended": "it answered what is no answer"}
        return self._end()

    def _end(self) -> dict[str, Any]:
        """Why the process ended, or is ended now."""
        try:
            status = self._process.wait(timeout=ENDING)  # its pipe is closed, so it is about to end
        except subprocess.TimeoutExpired:
            return {"ended": "it gave too long an answer, or none"}
        with self._printed.open("rb") as printed:
            printed.seek(max(0, self._printed.stat().st_size - _TAIL))
            return {"ended": "status", "status": status, "tail": printed.read()}

    def kill(self) -> None:
        """Kill the process and those that it started."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self._process.kill()

    def close(self) -> None:
        """Kill the process, wait for its end, and remove its folder."""
        if not self.is_mine:
            return
        self.kill()
        self._process.communicate()
        os.close(self._lifeline)
        self._folder.close()


def start_program(
    given: Mapping[str, Any], printed: IO[bytes], environment: Mapping[str, str], home: Path
) -> subprocess.Popen[bytes]:
    """Start the child's program in `home` with this environment; the tests fork it instead.

    What it prints goes to `printed`; of `given`, `lifeline` is the one file that it inherits.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-X", "utf8", str(PROGRAM), json.dumps(given)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=printed,
        env=dict(environment),
        cwd=home,
        pass_fds=(given["lifeline"],),
        start_new_session=True,
    )


def _environment(home: Path, cuda: bool) -> dict[str, str]:
    """What a child knows of our environment: nothing that could hold a credential."""
    prefixes = _PASSED_PREFIXES + (_CUDA_PREFIXES if cuda else ())
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(prefixes)
    }
    own = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_MODULES_CACHE": str(home / "modules"),
        "HF_TOKEN_PATH": str(home / "no-token"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**passed, **own, **({} if cuda else {"CUDA_VISIBLE_DEVICES": ""})}


def _cause_told(answer: Mapping[str, Any], limits: Mapping[str, int]) -> str:
    """Why a child ended, in words."""
    limit = f"limit {_gib(limits['memory'])}"
    ended = str(answer["ended"])
    if ended == "memory":
        return f"out of memory ({limit})"
    if ended != "status":
        return ended
    status, tail = int(answer["status"]), bytes(answer["tail"])
    if any(each in tail for each in _OUT_OF_MEMORY):
        return f"out of memory ({limit})"
    if status >= 0:
        return f"it left with status {status}{_last_line(tail)}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
    if name == "SIGKILL":
        return f"it was killed (SIGKILL), as the kernel does where memory runs out ({limit})"
    if name == "SIGXCPU":
        seconds = limits["cpu_seconds"]
        if seconds >= _A_DAY:  # a part of the work has less
            return "it took far more CPU time than such work takes (SIGXCPU)"
        return f"it took more than {seconds} s of CPU time (SIGXCPU)"
    return f"it crashed ({name}; {limit} of memory){_last_line(tail)}"


def _last_line(tail: bytes) -> str:
    lines = [each.strip() for each in tail.decode("utf-8", "replace").splitlines() if each.strip()]
    return f": {lines[-1][:300]}" if lines else ""


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.3g} GiB"
