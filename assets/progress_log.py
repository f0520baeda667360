"""Progress of long work as lines of Dagster's log."""

import time
from collections.abc import Callable
from typing import Protocol

SECONDS_BETWEEN_LINES = 10.0


class _Log(Protocol):
    def info(self, msg: object) -> None: ...


def log_progress(
    log: _Log, what: str, clock: Callable[[], float] = time.monotonic
) -> Callable[[int, int], None]:
    """Return a callback `(done, total)` that logs share and time left every ten seconds.

    Work that takes less says nothing.
    """
    started = last = clock()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = clock()
        if now - last < SECONDS_BETWEEN_LINES or not 0 < done < total:
            return
        last = now
        left = (now - started) * (total - done) / done
        log.info(f"{what}: {done / total:.0%} done, about {left:.0f} s left")

    return report
