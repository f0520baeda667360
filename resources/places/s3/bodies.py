"""Bodies of answers: read in order, within bounds of time, and kept open for the bytes that follow.

A request costs a server as much as sending megabytes, and the merge reads a file from its beginning
to its end. So one request asks for far more than a block, and its body waits, in the kernel's
buffers and the server's, until the next block is wanted: no memory of ours holds it.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from urllib3.response import BaseHTTPResponse

from resources.places.s3.client import BrokenBodyError, Timeouts

PARKED = 32  # bodies that wait at the same time in one process
_EACH = 4  # of one object: what is merged, what is measured before, samples
IDLE = 5.0  # seconds: a reader that goes on at all comes back within one block's work
_SLICE = 256 << 10  # bytes taken from a connection at once


class Watch:
    """Cuts what takes too long: one thread for all of a process, there while it has work."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._limits: dict[object, tuple[float, Callable[[], None]]] = {}
        self._next: float | None = None  # when the thread will look again
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._limits)

    @contextlib.contextmanager
    def limit(self, seconds: float, cut: Callable[[], None]) -> Iterator[threading.Event]:
        """Call `cut` when the block takes longer than `seconds`, and set the event then."""
        mark, late = object(), threading.Event()

        def end() -> None:
            late.set()
            with contextlib.suppress(Exception):  # it may just have ended
                cut()

        deadline = time.monotonic() + seconds
        with self._changed:
            self._limits[mark] = deadline, end
            if self._thread is None:
                self._next = deadline
                self._thread = threading.Thread(target=self._run, name="s3-watch", daemon=True)
                self._thread.start()
            elif self._next is None or deadline < self._next:
                self._changed.notify()
        try:
            yield late
        finally:
            with self._changed:
                self._limits.pop(mark, None)

    def _run(self) -> None:
        with self._changed:
            while self._limits:
                now = time.monotonic()
                for mark, (deadline, end) in list(self._limits.items()):
                    if deadline <= now:
                        del self._limits[mark]
                        end()
                self._next = min((each for each, _ in self._limits.values()), default=now)
                self._changed.wait(self._next - now)
            self._thread = None


class Body:
    """One answer's body; a fault closes it, its end gives the connection back.

    Its next byte is at `offset` of the object, and `left` bytes are still to come. It is `short`
    where the object ended before the range that was asked for.
    """

    def __init__(
        self,
        raw: BaseHTTPResponse,
        offset: int,
        nbytes: int,
        most: int,
        watch: Watch,
        times: Timeouts,
    ) -> None:
        """Take the answer to a request for at most `most` bytes from `offset`, which has `nbytes`.

        BrokenBodyError is raised where it has more than were asked for.
        """
        self.offset = offset
        self.left = nbytes
        self.short = nbytes < most
        self._raw = raw
        self._watch = watch
        self._times = times
        self._credit = times.read  # seconds it may be behind the slowest rate
        if nbytes > most:
            self.close()
            raise BrokenBodyError(f"{nbytes} bytes came where at most {most} were asked for")

    def cut(self) -> None:
        """Shut the connection down, from any thread; whoever reads is told that it broke off."""
        self._raw.shutdown()

    def fill(self, buffer: memoryview) -> int:
        """Fill `buffer`, or as much as is left; `offset` tells how far it came when that fails.

        BrokenBodyError is raised where the body ended too early, or took too long.
        """
        nbytes = min(len(buffer), self.left)
        allowed, started = self._credit + nbytes / self._times.slowest, time.monotonic()
        with self._watch.limit(allowed, self.cut) as late:
            try:
                self._take(buffer[:nbytes])
            except Exception as error:
                self.close()
                if late.is_set():
                    raise BrokenBodyError(f"{nbytes} bytes did not come in time") from error
                raise
        self._credit = min(self._times.read, allowed - (time.monotonic() - started))
        if not self.left:
            self._raw.drain_conn()
            self._raw.release_conn()
        return nbytes

    def close(self) -> None:
        """Give up what is left, and the connection with it."""
        self._raw.close()

    def _take(self, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            got = self._raw.readinto(buffer[done : done + _SLICE])
            if not got:
                raise BrokenBodyError(f"a body ended {self.left} bytes too early")
            done += got
            self.offset += got
            self.left -= got


class ParkedBodies:
    """Bodies that wait for who reads on where they are; thread-safe.

    At most `most` wait; one that waited for `idle` seconds may be given up for another.
    """

    def __init__(self, most: int = PARKED, idle: float = IDLE) -> None:
        self.most = most
        self.idle = idle
        self._lock = threading.RLock()  # a reader may be closed by whatever frees memory
        self._bodies: OrderedDict[tuple[object, int], tuple[Body, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._bodies)

    def waiting(self) -> list[tuple[object, Body]]:
        """Return whose reader's bodies wait, the longest first."""
        with self._lock:
            return [(reader, body) for (reader, _), (body, _) in self._bodies.items()]

    def has_room(self) -> bool:
        """Return whether another may come; one that nobody wanted for long makes room."""
        with self._lock:
            if len(self._bodies) < self.most:
                return True
            where, (body, since) = next(iter(self._bodies.items()))
            if time.monotonic() - since < self.idle:
                return False
            del self._bodies[where]
        body.close()
        return True

    def put(self, reader: object, body: Body) -> None:
        """Keep a body of `reader`'s object."""
        with self._lock:
            wheres = [where for where in list(self._bodies) if where[0] is reader]
            surplus = [where for where in wheres if where[1] == body.offset]
            surplus = surplus or wheres[: max(0, len(wheres) - _EACH + 1)]
            given_up = [self._bodies.pop(where)[0] for where in surplus]
            self._bodies[reader, body.offset] = body, time.monotonic()
        for each in given_up:
            each.close()

    def take(self, reader: object, offset: int) -> Body | None:
        """Return the body that goes on at `offset`, if there is one."""
        with self._lock:
            found = self._bodies.pop((reader, offset), None)
        return found[0] if found else None

    def drop(self, reader: object) -> None:
        """Give up all bodies of `reader`."""
        with self._lock:
            wheres = [where for where in list(self._bodies) if where[0] is reader]
            bodies = [self._bodies.pop(where)[0] for where in wheres]
        for body in bodies:
            body.close()
