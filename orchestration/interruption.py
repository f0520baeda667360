"""Ctrl-C, SIGTERM and SIGHUP: one way to end, within seconds, with nothing left half.

The first signal raises StopRequested in the main thread, which unwinds like any error: outputs that
are not whole vanish, names stay as they are. Where that takes longer than PATIENCE (a thread in a
long computation, a lock, a network), and at a second signal, the process ends at once: its children
are ended and its working folders removed first, and what remains goes with the next command.

The end is `os._exit`: what the interpreter does otherwise joins threads that may compute for
minutes, and tears modules down below threads that still run in C, which was seen to crash.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

TYPE_CHECKING = False  # `typing` takes longer to import than all of this module
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PATIENCE = 5.0  # seconds that unwinding may take; see docs/timeouts.md
_NAMES = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP: the terminal was closed",
}
_TRACKER = b"multiprocessing.resource_tracker"  # it removes semaphores once we are gone


class StopRequested(BaseException):
    """A signal asked this process to end. No library takes it for an error of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


class _State:
    """What came so far; one a process."""

    def __init__(self) -> None:
        self.pid = 0
        self.received = 0
        self.held = 0  # depth of `held`
        self.told = False
        self.dropped = False  # the interpreter had nowhere to raise the exception: once more


_state = _State()


def install() -> None:
    """Take the signals over for this process; one that it was started to ignore stays ignored.

    When all is done and the exit functions have run, they are ignored: the interpreter would give
    them back their defaults, and a command that did its work would end as one that was killed.
    """
    _state.pid = os.getpid()
    atexit.register(_settle)  # the first to be registered runs last
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _received)
    sys.unraisablehook = _unraisable


def _settle() -> None:
    """Ignore the signals from now on, in the process that took them over."""
    if is_installed() and not _state.received:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _unraisable(failure: Any) -> None:
    """Raise a signal again that came while an object was collected, where nothing can be raised.

    What else fails while a process unwinds is said nowhere: it is no news.
    """
    if not received():
        sys.__unraisablehook__(failure)
    elif isinstance(failure.exc_value, StopRequested):
        import threading

        _state.dropped = True
        target = threading.main_thread().ident
        again = threading.Timer(0.02, signal.pthread_kill, (target, failure.exc_value.number))
        again.daemon = True
        again.start()


def is_installed() -> bool:
    """Return whether this process has taken the signals over."""
    return _state.pid == os.getpid()


def marked(handler: Any) -> Any:
    """Mark a handler as one that calls `note`."""
    handler.takes_note = True
    return handler


def is_ours(handler: object) -> bool:
    """Return whether a handler is one that calls `note`."""
    return getattr(handler, "takes_note", False)


def received() -> int:
    """Return the signal that asked this process to end, or 0."""
    return _state.received if _state.pid == os.getpid() else 0


def check() -> None:
    """Raise StopRequested where a signal came whose exception somebody swallowed."""
    if received():
        raise StopRequested(_state.received)


def note(number: int) -> None:
    """Take note of a signal, before it is acted on; a second one ends this process at once."""
    if os.getpid() != _state.pid:  # a child that was forked: it ends as if nobody had asked for it
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    if _state.dropped:
        _state.dropped = False
        return
    if _state.received:
        end_now(number)
    _state.received = number
    import threading

    threading.Thread(target=_end_later, name="stop", daemon=True).start()


class held:
    """A block of few steps that belong together: a signal is put off to its end."""

    def __enter__(self) -> None:
        _state.held += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _state.held -= 1
        if not _state.held and kind is None:
            check()


def _received(number: int, _: FrameType | None) -> None:
    note(number)
    if not _state.held:
        raise StopRequested(number)


marked(_received)


def _end_later() -> None:
    import time

    time.sleep(PATIENCE)
    end_now(_state.received)


def end_now(number: int) -> NoReturn:
    """End children, remove working folders, and end this process with the signal's exit code."""
    folders: Any = sys.modules.get("merge_ops.working_folders")
    try:
        _end_children()
        if folders is not None:
            folders.remove_all()
        _tell(number)
    finally:
        os._exit(128 + number)


def end(number: int) -> NoReturn:
    """End this process once all has unwound: exit functions run, then as `end_now`."""
    try:
        atexit._run_exitfuncs()
    finally:
        end_now(number)


def _tell(number: int) -> None:
    """Say once, in one line, what ended this process."""
    if _state.told:
        return
    _state.told = True
    name = _NAMES.get(signal.Signals(number), str(number))
    line = f"\nronghe: stopped ({name}); nothing is left half. Run the command again to go on.\n"
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, RuntimeError, ValueError):
            continue
    try:
        os.write(2, line.encode())
    except OSError:
        return


def _end_children() -> None:
    """End every process below this one but the one that removes semaphores, the lowest first."""
    for pid in reversed(list(_below(os.getpid(), _parents()))):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if _TRACKER in file.read():
                    continue
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue


def _parents() -> dict[int, int]:
    """The parent of every process, where the kernel tells it."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
    return parents


def _below(pid: int, parents: dict[int, int]) -> Iterator[int]:
    """The processes below `pid`, parents first."""
    for child, parent in parents.items():
        if parent == pid:
            yield child
            yield from _below(child, parents)
