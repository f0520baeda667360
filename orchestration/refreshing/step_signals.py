"""Signals while Dagster runs steps in this process.

Dagster puts handlers of its own around each step. They raise what the steps' retry policy takes
for a lost process, so that one Ctrl-C cost a retry and the refresh went on. Here they still decide
*when* a signal is raised (not in the middle of Dagster's own bookkeeping), and the command line
decides what: StopRequested, which no policy retries.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from assets.frame.dagster_internals import interrupts
from orchestration import interruption

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def signals_end_the_refresh() -> Iterator[None]:
    """Hear of every signal before Dagster's handlers do; where ours are not there, do nothing."""
    if not interruption.is_installed():
        yield
        return
    names: Any = interrupts
    before = names._replace_interrupt_signal
    names._replace_interrupt_signal = _replace
    try:
        yield
    finally:
        names._replace_interrupt_signal = before


def _replace(handler: Any) -> None:
    """Set a handler of Dagster's, or put back one that it found."""
    wrapped = handler if interruption.is_ours(handler) or not callable(handler) else _noted(handler)
    for number in interruption.SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, wrapped)


def _noted(handler: _Handler) -> _Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        interruption.note(number)
        try:
            handler(number, frame)  # takes note, in Dagster's own work; raises, in a step
        except BaseException:
            flags: Any = interrupts
            flags._received_interrupt["received"] = True  # so that no further step begins
            raise interruption.StopRequested(number) from None

    return interruption.marked(handle)
