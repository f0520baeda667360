"""Waiting for what another process does, for as long as a slow machine may take.

No verdict may depend on how fast a machine is: tests wait for an event, and `HANG_SECONDS` only
tells a process that will never come from one that is slow.
"""

import time
from collections.abc import Callable

HANG_SECONDS = 900.0
"""Nothing in the tests takes a tenth of it on a core of its own, or half of it on a quarter."""


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
