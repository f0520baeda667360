"""Progress of long work: lines of Dagster's log, and what listens in the same process."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Literal, Protocol

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_MOVES = 0.1
"""How often a listener hears of one piece of work: as often as a bar is seen to move."""
Listener = Callable[[str, int, int, str], None]
"""Hears of a piece of work: what it is about, how much is done, how much there is, of what."""

_listeners: list[Listener] = []


class _Log(Protocol):
    def info(self, msg: object) -> None: ...


@contextmanager
def listening(listener: Listener) -> Generator[None]:
    """Have `listener` hear of all work of this process, its end included."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def log_progress(
    log: _Log,
    what: str,
    clock: Callable[[], float] = time.monotonic,
    unit: Literal["bytes", "items"] = "bytes",
) -> Callable[[int, int], None]:
    """Return a callback `(done, total)` that logs share and time left every ten seconds.

    Work that takes less says nothing in the log.
    """
    started = last = clock()
    moved: float | None = None

    def report(done: int, total: int) -> None:
        nonlocal last, moved
        now = clock()
        if moved is None or done >= total or now - moved >= SECONDS_BETWEEN_MOVES:
            moved = now
            for listener in _listeners:
                listener(what, done, total, unit)
        if now - last < SECONDS_BETWEEN_LINES or not 0 < done < total:
            return
        last = now
        left = (now - started) * (total - done) / done
        log.info(f"{what}: {done / total:.0%} done, about {left:.0f} s left")

    return report
