"""Large objects of a bucket in pieces: ranged GETs into the caller's buffers, uploads in parts.

Neither writes a file. Reading takes no memory beside the caller's; an upload holds the part being
filled and those under way, of which there are at most `PARTS_AT_ONCE` in the process.
"""

import contextlib
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from resources.places.s3.bodies import Body, ParkedBodies, Watch
from resources.places.s3.checksums import PartChecksums, begun_with, named_part, part_with
from resources.places.s3.client import code_of, is_missing, persist

if TYPE_CHECKING:
    from resources.places.s3.place import S3Place

GETS_AT_ONCE = 8
PARTS_AT_ONCE = 3
_GET = 8 << 20  # bytes of one ranged GET
_PART = 5 << 20  # bytes of one part of an upload, the least that S3 allows
_MOST_PARTS = 9_000  # S3 allows 10,000


class S3Reader:
    """Ranged GETs on one object, thread-safe."""

    def __init__(self, place: "S3Place", key: str) -> None:
        self._place = place
        self._key = key

    def read_into(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """Fill `buffer`, by several GETs at once when it is large; short only at the end.

        The answer to one that asks for bytes ahead stays open for whoever reads on behind it.
        """
        with self._place.translated(f"reading {self._key}"):
            if len(buffer) <= _GET or ahead:
                return self._get(offset, buffer, ahead)
            starts = range(0, len(buffer), _GET)
            parts = [buffer[start : start + _GET] for start in starts]
            offsets = [offset + start for start in starts]
            return sum(self._place.connection().gets.map(self._get, offsets, parts))

    def close(self) -> None:
        """Give up answers that are open; connections belong to the place."""
        connection = self._place.opened()
        if connection is not None:
            connection.parked.drop(self)

    def _get(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """One range; when an answer breaks off the rest of it is asked for."""
        parked = self._place.connection().parked
        done = 0

        def go(again: bool) -> int:
            nonlocal done
            while done < len(buffer):
                at = offset + done
                body = parked.take(self, at) or self._ask(at, len(buffer) - done, ahead)
                if body is None:
                    break
                try:
                    body.fill(buffer[done:])
                finally:
                    done = body.offset - offset
                if body.left:
                    parked.put(self, body)
                elif body.short:
                    break
            return done

        return persist(go, self._place.patience) if len(buffer) else 0

    def _ask(self, offset: int, nbytes: int, ahead: int) -> Body | None:
        """Ask for a range, and for what is ahead if one more answer may wait; None at the end."""
        connection = self._place.connection()
        most = nbytes + (ahead if ahead and connection.parked.has_room() else 0)
        try:
            answer = connection.client.get_object(
                **self._place.names(self._key), Range=f"bytes={offset}-{offset + most - 1}"
            )
        except ClientError as error:
            if code_of(error) == "InvalidRange":
                return None
            raise
        return Body(answer, offset, most, connection.watch, self._place.timeouts)


class S3Writer:
    """An upload in order: one PUT when small, else parts. The server checks each.

    The object appears with `commit`. Left by `abandon`, the parts are removed.
    """

    def __init__(self, place: "S3Place", key: str, size: int) -> None:
        self._place = place
        self._key = key
        self._part = max(_PART, -(-size // _MOST_PARTS))
        self._buffer = bytearray(min(size, self._part) or 1)
        self._filled = 0
        self._size = size
        self._upload = ""
        self._by_crc32 = False
        self._sent: list[Future[dict[str, Any]]] = []
        self._seen = 0  # of these, so many are known to have arrived
        self._given_up = False

    def write(self, data: memoryview) -> None:
        """Append bytes; waits when too many parts are under way."""
        at = 0
        while at < len(data):
            if self._filled == len(self._buffer):
                self._send()
            count = min(len(data) - at, len(self._buffer) - self._filled)
            self._buffer[self._filled : self._filled + count] = data[at : at + count]
            self._filled += count
            at += count

    def commit(self) -> None:
        """Finish the upload; the object exists when this returns."""
        if not self._upload:
            self._place.put(self._key, bytes(memoryview(self._buffer)[: self._filled]))
            return
        if self._filled:
            self._send()
        with self._place.translated(f"writing {self._key}"):
            parts = [sent.result() for sent in self._sent]
            persist(lambda again: self._complete(parts, again), self._place.patience)

    def abandon(self) -> None:
        """Wait for parts under way and abort the upload."""
        self._given_up = True
        for sent in self._sent:
            sent.exception()
        if self._upload:
            client = self._place.connection().client
            names = self._place.names(self._key)
            with contextlib.suppress(Exception):
                persist(
                    lambda again: client.abort_multipart_upload(**names, UploadId=self._upload),
                    self._place.patience,
                )

    def _send(self) -> None:
        """Hand the filled part to an uploading thread."""
        connection = self._place.connection()
        with self._place.translated(f"writing {self._key}"):
            if not self._upload:
                self._begin()
            while self._seen < len(self._sent) and self._sent[self._seen].done():
                self._sent[self._seen].result()
                self._seen += 1
            connection.parts_at_once.acquire()
            number, part = len(self._sent) + 1, self._buffer
            try:
                if self._filled < len(part):
                    del part[self._filled :]
                self._sent.append(connection.puts.submit(self._put_part, number, part))
            except BaseException:
                connection.parts_at_once.release()
                raise
        left = self._size - len(self._sent) * self._part
        self._buffer = connection.buffer(left if 0 < left < self._part else self._part)
        self._filled = 0

    def _begin(self) -> None:
        """Ask for an upload whose parts carry what the server checks."""
        connection = self._place.connection()
        self._by_crc32 = connection.part_checksums.by_crc32(self._place)
        asked = {**self._place.names(self._key), **begun_with(self._by_crc32)}
        self._upload = persist(
            lambda again: connection.client.create_multipart_upload(**asked)["UploadId"],
            self._place.patience,
        )

    def _put_part(self, number: int, part: bytearray) -> dict[str, Any]:
        """Upload one part, again when it did not arrive as it was sent; how it is named."""
        connection = self._place.connection()
        try:
            if self._given_up:
                return {}
            checksum = part_with(self._by_crc32, part)
            place = {**self._place.names(self._key), "UploadId": self._upload}
            body = {"PartNumber": number, "Body": part, **checksum}
            answer = persist(
                lambda again: connection.client.upload_part(**place, **body), self._place.patience
            )
            return named_part(number, {**answer, **checksum})
        finally:
            connection.take_back(part)
            connection.parts_at_once.release()

    def _complete(self, parts: list[dict[str, Any]], again: bool) -> None:
        """Make one object of the parts; an earlier try whose answer was lost may have done it."""
        client, names = self._place.connection().client, self._place.names(self._key)
        try:
            client.complete_multipart_upload(
                **names, UploadId=self._upload, MultipartUpload={"Parts": parts}
            )
        except ClientError as error:
            if not again or not is_missing(error):
                raise
            if client.head_object(**names)["ContentLength"] != self._size:
                raise


class Connection:
    """What one process has open to a bucket: a client, and threads that read and write."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.watch = Watch()
        self.parked = ParkedBodies()
        self.part_checksums = PartChecksums()
        self.gets = ThreadPoolExecutor(GETS_AT_ONCE, "s3-get")
        self.puts = ThreadPoolExecutor(PARTS_AT_ONCE, "s3-put")
        self.parts_at_once = threading.BoundedSemaphore(PARTS_AT_ONCE)
        self._spare: deque[bytearray] = deque(maxlen=PARTS_AT_ONCE)

    def buffer(self, nbytes: int) -> bytearray:
        """Return a buffer, one that was used before if it has the size."""
        with contextlib.suppress(IndexError):
            buffer = self._spare.pop()
            if len(buffer) == nbytes:
                return buffer
        return bytearray(nbytes)

    def take_back(self, buffer: bytearray) -> None:
        """Keep a buffer that nothing uses any more: fresh memory costs as much as a copy."""
        self._spare.append(buffer)
