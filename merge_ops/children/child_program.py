"""The program of a limited child (see limited_child.py): it limits itself, then answers requests.

It stands alone: `python -I` starts it by its path, with one argument of JSON, and until its limits
hold it imports the standard library only. Requests are lines of JSON on its input, each of a module
and a request; each gets one line on its output, after lines of what is told on the way. Network is
refused by the kernel (a seccomp filter on `socket` and io_uring, which needs no privilege; where a
machine has none, a network namespace of its own), and by an audit hook everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import struct
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

_NETWORK = (
    "socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr",
)  # fmt: skip
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
# Architecture by audit number, and its numbers of socket, io_uring_setup and seccomp:
_SYSTEM_CALLS = {"x86_64": (0xC000003E, 41, 425, 317), "aarch64": (0xC00000B7, 198, 425, 277)}
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_F_SETSIG = 10
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

_MOST_TOLD = 4000  # characters of an exception

_refused: set[str] = set()


def _refuse(event: str, _: object) -> None:
    if event in _refused:
        raise PermissionError(f"{event} is not done while strangers' files are looked at")


def _end_with_parent(lifeline: int) -> None:
    """Have the kernel kill this process when the other end of `lifeline` falls with its parent.

    (PR_SET_PDEATHSIG alone would kill it at the end of the *thread* that started it.)
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(lifeline, fcntl.F_GETFL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)

    def wait() -> None:  # where there is no such signal; and the parent may be gone already
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _limit(limits: dict[str, int]) -> None:
    """Set limits; those of memory and CPU time hold from here on, for this request."""
    try:
        import resource
    except ImportError:  # no Unix
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_DATA": limits["memory"],
        "RLIMIT_CPU": int(used.ru_utime + used.ru_stime) + limits["cpu_seconds"] + 1,
        "RLIMIT_NOFILE": limits["open_files"],
        "RLIMIT_FSIZE": limits["file_bytes"],
    }
    for name, value in wanted.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = resource.getrlimit(kind)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, hard))


def _cut_off() -> None:
    """Take the network away from this process, as well as this machine can."""
    sys.addaudithook(_refuse)
    _refused.update(_NETWORK)
    if sys.platform != "linux":
        return
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if not _filter_calls(library):
            own = _CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET
            library.unshare(own)
    except (OSError, AttributeError):
        return


def _filter_calls(library: Any) -> bool:
    """Have the kernel refuse `socket` (with EACCES) and io_uring. False where it cannot."""
    known = _SYSTEM_CALLS.get(platform.machine())
    if known is None or library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    architecture, socket, io_uring, seccomp = known
    load, equal, least, give = 0x20, 0x15, 0x35, 0x06
    allow, denied, unknown = 0x7FFF0000, 0x00050000 | 13, 0x00050000 | 38
    steps = [
        (load, 0, 0, 4),  # the architecture
        (equal, 0, 4, architecture),
        (load, 0, 0, 0),  # the number of the call
        (least, 2, 0, 0x40000000),  # another table of calls
        (equal, 3, 0, socket),
        (equal, 0, 1, io_uring),
        (give, 0, 0, unknown),
        (give, 0, 0, allow),
        (give, 0, 0, denied),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in steps))
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    # SECCOMP_SET_MODE_FILTER for all threads (TSYNC 1), without slower speculation (SPEC_ALLOW 4).
    return library.syscall(seccomp, 1, 1 | 4, ctypes.create_string_buffer(program)) == 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    step: BaseException | None = error
    while step is not None and id(step) not in seen:
        seen.add(id(step))
        yield step
        step = step.__cause__ or step.__context__


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error came from memory that was not there, Python's, torch's or a GPU's."""
    return any(
        isinstance(each, MemoryError)
        or type(each).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(each)[:2000]
        for each in _chain(error)
    )


class _Hiding:
    """A finder of modules that finds none of some packages, nor what is known of them."""

    def __init__(self, finder: Any, hidden: frozenset[str]) -> None:
        self._finder = finder
        self._hidden = hidden

    def find_spec(self, name: str, *given: Any) -> Any:
        """Return what the finder finds, or None of a hidden package."""
        return None if name.split(".")[0] in self._hidden else self._finder.find_spec(name, *given)

    def find_distributions(self, *given: Any) -> Any:
        """Return the distributions that the finder finds, without those of hidden packages."""
        named = (getattr(given[0], "name", None) or "") if given else ""
        if named.replace("-", "_").lower() in self._hidden:
            return iter(())
        found = getattr(self._finder, "find_distributions", None)
        return found(*given) if found else iter(())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)


def _given_view(asked: dict[str, Any]) -> tuple[str, str]:
    """Put a view of a model's folder in its place in a request; returns (view, folder)."""
    from merge_ops.children.model_view import make_view

    folder = asked["request"][asked["view"]]
    view = make_view(Path(folder), Path(tempfile.mkdtemp(prefix="view-")) / Path(folder).name)
    asked["request"][asked["view"]] = str(view)
    return str(view), folder


def main(argument: str) -> None:
    """Answer requests until the input ends."""
    settings = json.loads(argument)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    os.dup2(2, 1)  # what libraries print goes where the parent finds a reason
    _cut_off()
    _limit(settings["limits"])
    _end_with_parent(settings["lifeline"])
    sys.path.append(settings["root"])
    hidden = frozenset(settings["hidden"])
    sys.meta_path[:] = [_Hiding(each, hidden) for each in sys.meta_path]  # type: ignore[misc]
    with contextlib.suppress(OSError):  # where memory is out, the kernel is to take this process
        Path("/proc/self/oom_score_adj").write_text("1000")

    def say(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    def tell(told: Any) -> None:
        say(told=told)

    for line in sys.stdin.buffer:
        asked = json.loads(line)
        _limit(asked)
        names = None
        try:
            if asked.get("view"):
                names = _given_view(asked)
            module: Any = import_module(asked["module"])
            if not settings["cuda"]:
                _refused.update(_PROCESSES)
            answer = module.answer(asked["request"], tell)
            say(answer=answer)
        except BaseException as error:  # a panic of Rust is no Exception
            told = str(error)[:_MOST_TOLD]
            told = told.replace(*names) if names else told
            if out_of_memory(error):
                say(ended="memory")
            elif isinstance(error, Exception):
                say(raised=type(error).__name__, why=told)
            else:
                say(ended=f"{type(error).__name__}: {told}")
        if names:
            shutil.rmtree(Path(names[0]).parent, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
