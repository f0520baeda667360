"""Far files read in order: few requests, straight into the caller's buffers, each piece once.

A merge reads blocks of about 1 MiB that begin anywhere, from several threads, one behind the other.
Those of one file make a lane: what they read comes from one long answer, which the place keeps
open between them. Whole pieces are received where they are wanted; only pieces that two blocks
share, or that come before their turn, are kept here for a moment.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from resources.reading.checked_file import CheckedFile

BUDGET = 16 << 20  # bytes of pieces kept
STRAIGHT = 4 << 20  # ranges of so many bytes are fetched by several requests at once
_PART = 4 << 20  # bytes of each of these
_THREADS = 8
_LANES = 8  # of one file
_NEAR = 4 << 20  # bytes between a lane's end and a read that belongs to it: cheaper than a request
_LEAST_AHEAD, _MOST_AHEAD = 4 << 20, 64 << 20  # bytes asked for beyond a read, doubled each time
_SPARE = 4  # buffers kept for the next pieces


@dataclass(eq=False)
class _Lane:
    """Reads of one file that follow each other, by one thread at a time, the first of them first.

    Pieces before `claimed` are wanted by someone, those before `at` have come; bytes before `until`
    were asked for.
    """

    claimed: int
    at: int
    until: int = 0
    ahead: int = 0
    waiting: list[int] = field(default_factory=list[int])
    busy: bool = False
    turn: threading.Condition = field(default_factory=threading.Condition)

    @contextmanager
    def mine(self, first: int) -> Iterator[None]:
        """Wait until nobody reads and nobody waits for an earlier piece than `first`."""
        with self.turn:
            self.waiting.append(first)
            try:
                self.turn.wait_for(lambda: not self.busy and first == min(self.waiting))
            except BaseException:
                self.turn.notify_all()
                raise
            finally:
                self.waiting.remove(first)
            self.busy = True
        try:
            yield
        finally:
            with self.turn:
                self.busy = False
                self.turn.notify_all()

    def plan(self, stop: int) -> int:
        """Return up to which byte a request may ask that is made while bytes to `stop` are read."""
        if stop > self.until:
            if self.until:
                self.ahead = min(_MOST_AHEAD, max(_LEAST_AHEAD, 2 * self.ahead))
            self.until = stop + self.ahead
        return self.until


@dataclass(eq=False)
class _Kept:
    """A checked piece, of which `left` bytes were not read yet."""

    buffer: bytearray
    left: int


class ReadAhead:
    """Pieces of many files within one budget; thread-safe. One for each process."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._pool = ThreadPoolExecutor(_THREADS, "read-ahead")
        self._lock = threading.RLock()  # a source may be closed by whatever frees memory
        self._lanes: dict[CheckedFile, list[_Lane]] = {}  # least lately used first
        self._kept: OrderedDict[tuple[CheckedFile, int], _Kept] = OrderedDict()  # likewise
        self._nbytes = 0
        self._spare: list[bytearray] = []  # used again: fresh memory costs as much as a copy
        self._most_spare = _SPARE  # of its own: sources close while Python takes modules apart

    @property
    def kept_bytes(self) -> int:
        """Return the bytes of pieces that are kept now."""
        return self._nbytes

    def read(self, file: CheckedFile, offset: int, into: memoryview) -> None:
        """Fill `into` with checked bytes of `file` from `offset`. Raises what `fill` raises."""
        end = offset + len(into)
        inner, beyond = -(-offset // file.piece), end // file.piece
        if len(into) < STRAIGHT or inner >= beyond:
            self._in_lane(file, offset, into)
            return
        start, stop = inner * file.piece, beyond * file.piece
        parts = range(inner, beyond, max(1, _PART // file.piece))
        self._fill_all(file, list(parts), start, into[start - offset : stop - offset])
        for low, high in ((offset, start), (stop, end)):
            if low < high:
                self._in_lane(file, low, into[low - offset : high - offset])

    def forget(self, file: CheckedFile) -> None:
        """Drop what is kept of a file."""
        with self._lock:
            self._lanes.pop(file, None)
            for where in [where for where in self._kept if where[0] is file]:
                self._drop(where)

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

    def _in_lane(self, file: CheckedFile, offset: int, into: memoryview) -> None:
        """A range, in the lane that it goes on with."""
        first, after = offset // file.piece, -(-(offset + len(into)) // file.piece)
        lane = self._lane(file, first, after)
        with lane.mine(first):
            at = first
            while at < after:
                if self._take(file, at, offset, into):
                    at += 1
                    lane.at = at if lane.at == at - 1 else lane.at
                    continue
                stop = at + 1
                while stop < after and (file, stop) not in self._kept:
                    stop += 1
                self._fetch(lane, file, at, stop, offset, into)
                at = stop

    def _lane(self, file: CheckedFile, first: int, after: int) -> _Lane:
        """The lane whose end is nearest to piece `first`, or a new one."""
        near = max(1, _NEAR // file.piece)
        with self._lock:
            lanes = self._lanes.setdefault(file, [])
            lane = min(lanes, key=lambda each: abs(each.claimed - first), default=None)
            if lane is None or abs(lane.claimed - first) > near:
                lane = _Lane(first, first)
                del lanes[: max(0, len(lanes) - _LANES + 1)]
            else:
                lanes.remove(lane)
            lanes.append(lane)
            lane.claimed = max(lane.claimed, after)
            return lane

    def _fetch(
        self, lane: _Lane, file: CheckedFile, first: int, after: int, offset: int, into: memoryview
    ) -> None:
        """Pieces [first, after), of which none is kept: whole ones go straight into `into`."""
        end = offset + len(into)
        start, stop = file.span(first, after - first)
        until = stop
        if first > lane.at + max(1, _NEAR // file.piece):  # what lay between was kept
            lane.at, lane.until, lane.ahead = first, 0, 0
        if lane.at <= first:
            until = min(file.size, lane.plan(stop))
            for number in range(lane.at, first):  # of others, who come late
                if (file, number) not in self._kept:
                    self._fetch_one(file, number, until, offset, into)
            lane.at = after
        inner = first + (start < offset)
        beyond = max(inner, after - (stop > end))
        if first < inner:
            self._fetch_one(file, first, until, offset, into)
        if inner < beyond:
            low, high = file.span(inner, beyond - inner)
            file.fill(inner, into[low - offset : high - offset], until - high)
        if beyond < after:
            self._fetch_one(file, beyond, until, offset, into)

    def _fetch_one(
        self, file: CheckedFile, number: int, until: int, offset: int, into: memoryview
    ) -> None:
        """A piece that is wanted in part, or not yet: the rest of it is kept."""
        start, stop = file.span(number, 1)
        with self._lock:
            fits = [at for at, each in enumerate(self._spare) if len(each) >= stop - start]
            buffer = self._spare.pop(fits[0]) if fits else bytearray(stop - start)
        file.fill(number, memoryview(buffer)[: stop - start], until - stop)
        with self._lock:
            self._drop((file, number))
            self._kept[file, number] = _Kept(buffer, stop - start)
            self._nbytes += stop - start
            self._take(file, number, offset, into)
            while self._nbytes > self._budget:
                self._drop(next(iter(self._kept)))

    def _take(self, file: CheckedFile, number: int, offset: int, into: memoryview) -> bool:
        """Copy the part of a piece that falls into a range, if it is kept; drop it when all read.

        Whether it was kept.
        """
        start, stop = file.span(number, 1)
        low, high = max(start, offset), min(stop, offset + len(into))
        with self._lock:
            kept = self._kept.get((file, number))
            if kept is None:
                return False
            self._kept.move_to_end((file, number))
            if low < high:
                data = memoryview(kept.buffer)[low - start : high - start]
                into[low - offset : high - offset] = data
                kept.left -= high - low
                if kept.left <= 0:
                    self._drop((file, number))
            return True

    def _drop(self, where: tuple[CheckedFile, int]) -> None:
        kept = self._kept.pop(where, None)
        if kept is None:
            return
        start, stop = where[0].span(where[1], 1)
        self._nbytes -= stop - start
        if len(self._spare) < self._most_spare:
            self._spare.append(kept.buffer)
