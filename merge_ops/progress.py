"""How far a merge has come, in bytes of inputs."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]


class Meter:
    """Bytes done, as told to `progress`: every pass has a share of what is left, the last all."""

    def __init__(self, whole: int, progress: Progress | None) -> None:
        self._whole = whole
        self._tell = progress
        self._from = self._part = self._read = 0

    def start(self, share: int) -> None:
        """A pass that reads everything, and counts as 1/`share` of what is left."""
        self._from += self._part * self._read // max(1, self._whole)
        self._part, self._read = (self._whole - self._from) // share, 0

    def add(self, nbytes: int) -> None:
        """So many bytes of this pass are done."""
        self._read += nbytes
        if self._tell:
            done = self._from + self._part * self._read // max(1, self._whole)
            self._tell(done, self._whole)
