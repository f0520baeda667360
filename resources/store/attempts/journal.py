"""An attempt's marker: a sign of life, and what is written so far, so that a later run can go on.

A mark says that the first `done` bytes of a file have this blake3. Files are written in order, so
the marks of a dead attempt tell how much of each file is whole, without a second hash of anything.
"""

import contextlib
import json
import threading
import time
from typing import Any, Protocol

from resources.errors import StoreError, UnfinishedReadError
from resources.places import Place
from resources.store.attempts.owners import this_process

BEAT = 60.0  # seconds between signs of life while bytes are written
_RENEWAL = 30.0  # seconds between signs of life of an attempt that can be resumed
_SPACING = 1 << 20  # bytes between two marks
_DENSE = 64  # so many last marks of a file stay; of older ones ever fewer
_LEAST_PAUSE, _MOST_PAUSE = 0.05, 2.0  # seconds between two writings of the marker
_SHARE = 4  # between these, writing it takes at most a fifth of the thread's time


class Hasher(Protocol):
    """A blake3 under way."""

    def hexdigest(self) -> str:
        """Return the digest of what came so far."""
        ...


class Journal:
    """The marker at `key`. With a `digest` a thread renews it, with all marks, until `stop`.

    Without one it is renewed now and then by `mark`, and holds no marks: nothing could look for
    them.
    """

    def __init__(self, place: Place, key: str, kind: str, digest: str | None) -> None:
        self._place = place
        self._key = key
        self._note = {"by": "attempt", "kind": kind, "digest": digest, **this_process()}
        self._files: dict[str, dict[str, Any]] = {}
        self._expected: dict[tuple[str, int], str] = {}
        self._lock = threading.Lock()
        self._changed, self._stopped = threading.Event(), threading.Event()
        self._last = 0.0
        self._put()
        self._thread: threading.Thread | None = None
        if digest is not None:
            self._thread = threading.Thread(target=self._renew, name="journal", daemon=True)
            self._thread.start()

    def expect(self, file: str, done: int, digest: str) -> None:
        """Have the first `done` bytes of `file` checked when they are written."""
        self._expected[file, done] = digest

    def mark(self, file: str, size: int, done: int, hasher: Hasher) -> None:
        """Note that `done` of the file's `size` bytes are written, whose hash is `hasher`'s.

        UnfinishedReadError is raised where they are not the bytes that were expected.
        """
        expected = self._expected.get((file, done))
        if expected is not None and expected != hasher.hexdigest():
            raise UnfinishedReadError(
                f"artifact store {self._place.uri}: the first {done} bytes of {file!r}, copied "
                f"from an unfinished attempt, are not those that were checked there; run again"
            )
        if self._thread is None:
            if time.monotonic() - self._last >= BEAT:
                self._put()
            return
        with self._lock:
            entry = self._files.setdefault(file, {"size": size, "marks": []})
            marks = entry["marks"]
            if done < size and done - (marks[-1][0] if marks else 0) < _SPACING:
                return
            entry["marks"] = _thinned([*marks, [done, hasher.hexdigest()]])
        self._changed.set()

    def marks(self, file: str) -> list[int]:
        """Return up to which bytes of a file a mark says that they are written, ascending."""
        with self._lock:
            return [done for done, _ in self._files[file]["marks"]]

    def committed(self, file: str) -> None:
        """Keep only the last mark of a file that is whole."""
        with self._lock:
            if file in self._files:
                self._files[file]["marks"] = self._files[file]["marks"][-1:]

    def forget(self, file: str) -> None:
        """Drop the marks of a file that was given up."""
        with self._lock:
            self._files.pop(file, None)

    def stop(self) -> None:
        """Renew no longer."""
        self._stopped.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()

    def _put(self) -> None:
        self._last = time.monotonic()
        with self._lock:
            data = json.dumps({**self._note, "files": self._files}).encode()
        self._place.put(self._key, data)

    def _renew(self) -> None:
        """Write what is new, soon after it is there; a failure is made good by the next time."""
        while True:
            self._changed.wait(_RENEWAL)
            self._changed.clear()
            if self._stopped.is_set():
                return
            started = time.monotonic()
            with contextlib.suppress(StoreError):
                self._put()
            took = time.monotonic() - started
            self._stopped.wait(min(_MOST_PAUSE, max(_LEAST_PAUSE, _SHARE * took)))


def _thinned(marks: list[list[Any]]) -> list[list[Any]]:
    """The last marks, and of the older ones so many that gaps stay an eighth of the way back."""
    if len(marks) <= 2 * _DENSE:
        return marks
    older, kept, end = marks[:-_DENSE], marks[-_DENSE:], marks[-1][0]
    stay: list[list[Any]] = []
    following = kept[0][0]
    for number, mark in reversed(list(enumerate(older))):
        before = older[number - 1][0] if number else 0
        if following - before > (end - before) / 8:  # too far to do without the one between
            stay.append(mark)
            following = mark[0]
    return stay[::-1] + kept
