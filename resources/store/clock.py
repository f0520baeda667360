"""The time by the store's own clock, whatever the clock of this machine says."""

import functools
import time
from datetime import UTC, datetime

from resources.places import Place

# Goes on while the machine sleeps, and nobody can set it. Not every system has it.
_TICKING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class StoreClock:
    """Asks the place once for the time, and counts on from there."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def now_text(self) -> str:
        """Return the time now, UTC, to the millisecond, in ISO 8601."""
        now = self._started + time.clock_gettime(_TICKING)
        return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")

    @functools.cached_property
    def _started(self) -> float:
        return self._place.now() - time.clock_gettime(_TICKING)
