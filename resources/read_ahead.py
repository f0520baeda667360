"""Pieces of far files in memory: a server is asked for many at once, and for none twice.

A merge reads blocks of about 1 MiB that begin anywhere, from several threads, one behind the other.
A request of a server costs as much as sending megabytes, so neighbouring pieces are fetched
together (a run of pieces), and the next run while this one is used.
"""

import threading
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from resources.checked_file import CheckedFile

BUDGET = 24 << 20  # bytes of runs kept; more only while more than that is waited for
RUN = 4 << 20  # bytes of a run at most
STRAIGHT = 4 << 20  # ranges of so many bytes go straight into the caller's buffer
_THREADS = 8
_PLACES = 8  # places of one file that are read one behind the other at the same time
_SPARE = 2  # buffers kept for the next runs
_RUNS_A_PLACE = 3  # the one before, the one being used, the next


@dataclass(eq=False)
class _Run:
    """Pieces [first, after) of a file, there or on their way; `users` read from it now."""

    file: CheckedFile
    first: int
    after: int
    buffer: bytearray
    nbytes: int
    arrival: Future[None]
    users: int = 0


class ReadAhead:
    """Runs of pieces of many files within one budget; thread-safe. One for each process."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._pool = ThreadPoolExecutor(_THREADS, "read-ahead")
        self._lock = threading.Lock()
        self._runs: dict[CheckedFile, dict[int, _Run]] = {}  # by piece
        self._order: OrderedDict[_Run, None] = OrderedDict()  # least lately used first
        self._ends: dict[CheckedFile, deque[int]] = {}
        self._kept = 0
        self._spare: list[bytearray] = []  # used again: fresh memory costs as much as a copy
        self._most_spare = _SPARE  # of its own: sources close while Python takes modules apart

    def read(self, file: CheckedFile, offset: int, into: memoryview) -> None:
        """Fill `into` with checked bytes of `file` from `offset`. Raises what `fill` raises."""
        end = offset + len(into)
        inner, beyond = -(-offset // file.piece), end // file.piece
        if len(into) < STRAIGHT or inner >= beyond:
            self._through(file, offset, into)
            return
        start, stop = inner * file.piece, beyond * file.piece
        parts = range(inner, beyond, max(1, RUN // file.piece))
        self._fill_all(file, list(parts), start, into[start - offset : stop - offset])
        for low, high in ((offset, start), (stop, end)):
            if low < high:
                self._through(file, low, into[low - offset : high - offset])

    def forget(self, file: CheckedFile) -> None:
        """Drop what is kept of a file."""
        with self._lock:
            for run in set(self._runs.get(file, {}).values()):
                self._drop(run)
            self._ends.pop(file, None)

    def _fill_all(self, file: CheckedFile, firsts: list[int], start: int, into: memoryview) -> None:
        """Runs of pieces at once, straight into `into`, which begins at byte `start`."""
        bounds = [first * file.piece - start for first in firsts] + [len(into)]
        waiting = [
            self._pool.submit(file.fill, first, into[low:high])
            for first, low, high in zip(firsts, bounds, bounds[1:], strict=False)
        ]
        for each in waiting:
            each.exception()  # no thread may write into the caller's buffer after this returns
        for each in waiting:
            each.result()

    def _through(self, file: CheckedFile, offset: int, into: memoryview) -> None:
        """A range by way of kept runs."""
        end = offset + len(into)
        runs = self._hold(file, offset // file.piece, -(-end // file.piece))
        try:
            for run in runs:
                run.arrival.result()
                start, stop = file.span(run.first, run.after - run.first)
                low, high = max(start, offset), min(stop, end)
                data = memoryview(run.buffer)
                into[low - offset : high - offset] = data[low - start : high - start]
        except BaseException:
            with self._lock:
                for run in runs:
                    if not run.arrival.done() or run.arrival.exception() is not None:
                        self._drop(run)
            raise
        finally:
            with self._lock:
                for run in runs:
                    run.users -= 1
                self._evict()

    def _hold(self, file: CheckedFile, first: int, after: int) -> list[_Run]:
        """The runs that cover pieces [first, after), each held; starts those that are missing."""
        with self._lock:
            most = self._most(file)
            follows = self._note(file, first, after, most)
            held: list[_Run] = []
            at = first
            while at < after:
                run = self._runs.get(file, {}).get(at)
                if run is None:
                    run = self._start(file, at, at + most if follows else after)
                run.users += 1
                self._order.move_to_end(run)
                held.append(run)
                at = run.after
            if follows and at < file.count and at not in self._runs.get(file, {}):
                self._start(file, at, at + most)
            self._evict()
            return held

    def _most(self, file: CheckedFile) -> int:
        """Pieces of a run, so that all files being read share the budget."""
        files = len({run.file for run in self._order} | {file})
        return max(1, min(RUN, self._budget // (_RUNS_A_PLACE * files)) // file.piece)

    def _note(self, file: CheckedFile, first: int, after: int, most: int) -> bool:
        """Whether this range follows an earlier one, perhaps a little before its turn."""
        ends = self._ends.setdefault(file, deque(maxlen=_PLACES))
        near = [end for end in ends if end - most <= first <= end + most]
        for end in near:
            ends.remove(end)
        ends.append(max([after, *near]))
        return bool(near)

    def _start(self, file: CheckedFile, first: int, after: int) -> _Run:
        """Fetch pieces [first, after), as far as none of them is there already."""
        pieces = self._runs.setdefault(file, {})
        after = min(after, file.count)
        after = next((piece for piece in range(first, after) if piece in pieces), after)
        start, stop = file.span(first, after - first)
        nbytes = stop - start
        fits = [at for at, each in enumerate(self._spare) if len(each) >= nbytes]
        buffer = self._spare.pop(fits[0]) if fits else bytearray(nbytes)
        run = _Run(file, first, after, buffer, nbytes, Future())
        run.arrival = self._pool.submit(file.fill, first, memoryview(buffer)[:nbytes])
        pieces.update(dict.fromkeys(range(first, after), run))
        self._order[run] = None
        self._kept += nbytes
        return run

    def _evict(self) -> None:
        """Drop what was used longest ago and is not in use, down to the budget."""
        for run in list(self._order):
            if self._kept <= self._budget:
                return
            if not run.users and run.arrival.done():
                self._drop(run)

    def _drop(self, run: _Run) -> None:
        if run not in self._order:
            return
        del self._order[run]
        self._kept -= run.nbytes
        if run.arrival.done() and not run.users and len(self._spare) < self._most_spare:
            self._spare.append(run.buffer)
        pieces = self._runs[run.file]
        for piece in range(run.first, run.after):
            pieces.pop(piece, None)
        if not pieces:
            del self._runs[run.file]
