"""Waiting for what another process does, for as long as a slow machine may take.

No verdict may depend on how fast a machine is: tests wait for an event, and `HANG_SECONDS` only
tells a process that will never come from one that is slow.
"""

import time
from collections.abc import Callable

HANG_SECONDS = 3600.0
"""Nothing takes a fiftieth of it on a core of its own; the daemon on a quarter of one, which it
shares with a machine at work, took more than 900 seconds for one update."""


def wait_until(
    holds: Callable[[], bool], what: Callable[[], str] | str, pause: float = 0.05
) -> None:
    """Wait until something holds, looking every `pause` seconds; fail saying `what` does not."""
    deadline = time.monotonic() + HANG_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            said = what if isinstance(what, str) else what()
            raise AssertionError(f"it hangs, {HANG_SECONDS:.0f} s without: {said}")
        time.sleep(pause)
