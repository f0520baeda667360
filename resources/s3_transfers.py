"""Large objects of a bucket in pieces: ranged GETs into the caller's buffers, uploads in parts.

Both stay in memory, and in little of it: an upload holds the part being filled and those under way,
of which there are at most `PARTS_AT_ONCE` in the process.
"""

import base64
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from resources.s3_client import BrokenBodyError, Timeouts, code_of, is_missing, persist

if TYPE_CHECKING:
    from resources.s3_place import S3Place

GETS_AT_ONCE = 8
PARTS_AT_ONCE = 4
_GET = 8 << 20  # bytes of one ranged GET
_PART = 8 << 20  # bytes of one part of an upload
_MOST_PARTS = 9_000  # S3 allows 10,000
_SLICE = 256 << 10  # bytes taken from a connection at once


class S3Reader:
    """Ranged GETs on one object, thread-safe."""

    def __init__(self, place: "S3Place", key: str) -> None:
        self._place = place
        self._key = key

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer`, by several GETs at once when it is large; short only at the end."""
        with self._place.translated(f"reading {self._key}"):
            if len(buffer) <= _GET:
                return self._get(offset, buffer)
            starts = range(0, len(buffer), _GET)
            parts = [buffer[start : start + _GET] for start in starts]
            offsets = [offset + start for start in starts]
            return sum(self._place.connection().gets.map(self._get, offsets, parts))

    def close(self) -> None:
        """Do nothing: connections belong to the place."""

    def _get(self, offset: int, buffer: memoryview) -> int:
        """One range; when an answer breaks off the rest of it is asked for."""
        done = 0

        def go(again: bool) -> int:
            nonlocal done
            for got in self._slices(offset + done, buffer[done:]):
                done += got
            return done

        return persist(go, self._place.patience) if len(buffer) else 0

    def _slices(self, offset: int, buffer: memoryview) -> Iterator[int]:
        """Read one answer into `buffer`, telling of every slice."""
        place = self._place
        try:
            answer = place.connection().client.get_object(
                **place.names(self._key), Range=f"bytes={offset}-{offset + len(buffer) - 1}"
            )
        except ClientError as error:
            if code_of(error) == "InvalidRange":
                return
            raise
        yield from read_body(answer, buffer, place.timeouts)


def read_body(answer: Any, buffer: memoryview, timeouts: Timeouts) -> Iterator[int]:
    """Read an answer's body into the start of `buffer`, telling the bytes of every slice.

    Raises:
        BrokenBodyError: it ended too early, or took too long.
    """
    length = int(answer["ContentLength"])
    if length > len(buffer):
        raise BrokenBodyError(f"{length} bytes came where at most {len(buffer)} were asked for")
    raw = answer["Body"]._raw_stream
    slow = threading.Event()

    def cut() -> None:
        slow.set()
        with contextlib.suppress(Exception):  # it may just have ended
            raw.shutdown()

    timer = threading.Timer(timeouts.body(length), cut)
    timer.daemon = True
    timer.start()
    done = 0
    try:
        while done < length:
            got = raw.readinto(buffer[done : min(length, done + _SLICE)])
            if not got:
                raise BrokenBodyError(f"a body ended {length - done} bytes too early")
            done += got
            yield got
    except Exception as error:
        raw.close()
        if slow.is_set():
            raise BrokenBodyError(f"{length} bytes did not come in time") from error
        raise
    else:
        raw.drain_conn()
        raw.release_conn()
    finally:
        timer.cancel()


class S3Writer:
    """An upload in order: one PUT when small, else parts. The server checks the MD5 of each.

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
        self._sent: list[Future[str]] = []
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
            tags = [sent.result() for sent in self._sent]
            persist(lambda again: self._complete(tags, again), self._place.patience)

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
                self._upload = persist(
                    lambda again: connection.client.create_multipart_upload(
                        **self._place.names(self._key)
                    )["UploadId"],
                    self._place.patience,
                )
            for sent in self._sent:
                if sent.done():
                    sent.result()
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
        self._buffer = bytearray(left if 0 < left < self._part else self._part)
        self._filled = 0

    def _put_part(self, number: int, part: bytearray) -> str:
        """Upload one part, again when it did not arrive as it was sent; its ETag."""
        connection = self._place.connection()
        try:
            if self._given_up:
                return ""
            body = {"Body": part, "ContentMD5": md5(part)}
            place = {**self._place.names(self._key), "UploadId": self._upload}
            return persist(
                lambda again: connection.client.upload_part(**place, PartNumber=number, **body),
                self._place.patience,
            )["ETag"]
        finally:
            connection.parts_at_once.release()

    def _complete(self, tags: list[str], again: bool) -> None:
        """Make one object of the parts; an earlier try whose answer was lost may have done it."""
        client, names = self._place.connection().client, self._place.names(self._key)
        parts = [{"ETag": tag, "PartNumber": number} for number, tag in enumerate(tags, 1)]
        try:
            client.complete_multipart_upload(
                **names, UploadId=self._upload, MultipartUpload={"Parts": parts}
            )
        except ClientError as error:
            if not again or not is_missing(error):
                raise
            if client.head_object(**names)["ContentLength"] != self._size:
                raise


def md5(data: bytes | bytearray) -> str:
    """Return the value of Content-MD5, by which the server refuses what arrived otherwise."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


class Connection:
    """What one process has open to a bucket: a client, and threads that read and write."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.gets = ThreadPoolExecutor(GETS_AT_ONCE, "s3-get")
        self.puts = ThreadPoolExecutor(PARTS_AT_ONCE, "s3-put")
        self.parts_at_once = threading.BoundedSemaphore(PARTS_AT_ONCE)
