"""One file of a published artifact, read in whole pieces, each checked before anyone sees it."""

import threading
import time

from blake3 import blake3

from resources.errors import DamagedArtifactError
from resources.places import PlaceReader
from resources.reading.digest_tree import WIDTH

_FIRST_PAUSE = 0.05  # seconds before a piece is fetched again, doubled each time


class CheckedFile:
    """Pieces of one file by number; thread-safe.

    The file has `size` bytes in `count` pieces of `piece` bytes, the last one shorter.
    """

    def __init__(
        self, reader: PlaceReader, where: str, size: int, piece: int, digests: bytes, tries: int
    ) -> None:
        """Take the file where it lies, what messages call it, and the digests of all its pieces.

        A piece that arrives wrong is fetched up to `tries` times.
        """
        self.size = size
        self.piece = piece
        self.count = len(digests) // WIDTH
        self._reader = reader
        self._where = where
        self._digests = digests
        self._tries = tries
        self._seen = bytearray(self.count)
        self._state = reader.state()
        self._local = threading.local()

    def span(self, first: int, count: int) -> tuple[int, int]:
        """Return where pieces [first, first + count) begin and end in the file."""
        return first * self.piece, min(self.size, (first + count) * self.piece)

    def fill(self, first: int, into: memoryview, ahead: int = 0) -> None:
        """Read whole pieces from `first` on into `into`, which ends where a piece does.

        A piece that arrives wrong is fetched again, with growing pauses. The next `ahead` bytes
        will probably be wanted too. ShortFileError is raised where the file ends too early,
        DamagedArtifactError where a piece has other bytes than were published.
        """
        start = first * self.piece
        end = start + self._reader.read_into(start, into, ahead)
        for at in range(0, len(into), self.piece):
            view = into[at : at + self.piece]
            number = first + at // self.piece
            tries = 1
            while end < start + at + len(view) or not self._is_right(number, view):
                if tries == self._tries:
                    raise self._fault(start + at, len(view), end)
                time.sleep(_FIRST_PAUSE * 2.0 ** (tries - 1))
                got = self._reader.read_into(start + at, view)
                end = max(end, start + at + got)
                tries += 1

    def read_near(self, offset: int, into: memoryview) -> None:
        """Read any range of a file that lies near: what it costs is the check, not the reading.

        So a piece is checked once, and read again for each range it is part of; where the file was
        written to since, it is checked again.
        """
        if (state := self._reader.state()) != self._state:
            self._state, self._seen = state, bytearray(self.count)
        end = offset + len(into)
        first, after = offset // self.piece, -(-end // self.piece)
        if all(self._seen[first:after]):
            self._plain(offset, into)
            return
        inner, beyond = -(-offset // self.piece), end // self.piece
        if end == self.size:
            beyond = after
        if inner < beyond:
            start, stop = self.span(inner, beyond - inner)
            self.fill(inner, into[start - offset : stop - offset])
            self._seen[inner:beyond] = b"\1" * (beyond - inner)
        for number in sorted({first, after - 1}):
            if not inner <= number < beyond:
                self._edge(number, offset, into)

    def close(self) -> None:
        """Close the file underneath."""
        self._reader.close()

    def _edge(self, number: int, offset: int, into: memoryview) -> None:
        """The part of one piece that falls into a range."""
        start, stop = self.span(number, 1)
        low, high = max(start, offset), min(stop, offset + len(into))
        part = into[low - offset : high - offset]
        if self._seen[number]:
            self._plain(low, part)
            return
        if not hasattr(self._local, "piece"):
            self._local.piece = memoryview(bytearray(self.piece))
        whole: memoryview = self._local.piece[: stop - start]
        self.fill(number, whole)
        part[:] = whole[low - start : high - start]
        self._seen[number] = 1

    def _plain(self, offset: int, into: memoryview) -> None:
        got = self._reader.read_into(offset, into)
        if got != len(into):
            raise ShortFileError(offset + got)

    def _is_right(self, number: int, data: memoryview) -> bool:
        at = number * WIDTH
        return blake3(data).digest() == self._digests[at : at + WIDTH]

    def _fault(self, offset: int, nbytes: int, end: int) -> Exception:
        if end < offset + nbytes:
            return ShortFileError(end)
        return DamagedArtifactError(
            f"{self._where} has other bytes than were published: the {nbytes} from byte {offset} "
            f"on arrived wrong {self._tries} times; check the store with verify, the storage "
            f"underneath and the network"
        )


class ShortFileError(Exception):
    """A file ends at byte `end`, before what was asked for; never leaves this package."""

    def __init__(self, end: int) -> None:
        super().__init__(end)
        self.end = end
