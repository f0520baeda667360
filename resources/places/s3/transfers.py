"""Large objects of a bucket in pieces: ranged GETs into the caller's buffers, uploads in parts.

Neither writes a file. Reading takes no memory beside the caller's; an upload holds the part being
filled and those under way, of which there are at most `PARTS_AT_ONCE` in the process.
"""

import contextlib
from concurrent.futures import Future
from typing import Any

from botocore.exceptions import ClientError

from resources.places.s3.bodies import Body
from resources.places.s3.bucket import Bucket
from resources.places.s3.checksums import begun_with, checks_crc32, part_with
from resources.places.s3.client import code_of, is_missing, persist
from resources.places.s3.objects import put_object
from resources.places.s3.uploads import named_part

_GET = 8 << 20  # bytes of one ranged GET
_PART = 5 << 20  # bytes of one part of an upload, the least that S3 allows
_MOST_PARTS = 9_000  # S3 allows 10,000


class S3Reader:
    """Ranged GETs on one object, thread-safe; with a `tag`, on that version of it alone."""

    def __init__(self, bucket: Bucket, key: str, tag: str = "") -> None:
        self._bucket = bucket
        self._key = key
        self._version = {"IfMatch": tag} if tag else {}

    def read_into(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """Fill `buffer`, by several GETs at once when it is large; short only at the end.

        The answer to one that asks for bytes ahead stays open for whoever reads on behind it.
        """
        with self._bucket.translated(f"reading {self._key}"):
            if len(buffer) <= _GET or ahead:
                return self._get(offset, buffer, ahead)
            starts = range(0, len(buffer), _GET)
            parts = [buffer[start : start + _GET] for start in starts]
            offsets = [offset + start for start in starts]
            return sum(self._bucket.connection().gets.map(self._get, offsets, parts))

    def state(self) -> object:
        """Return None: an object is replaced, not written to, and each answer is checked."""
        return None

    def close(self) -> None:
        """Give up answers that are open; connections belong to the bucket."""
        connection = self._bucket.opened()
        if connection is not None:
            connection.parked.drop(self)

    def _get(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """One range; when an answer breaks off the rest of it is asked for."""
        parked = self._bucket.connection().parked
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

        return persist(go, self._bucket.patience) if len(buffer) else 0

    def _ask(self, offset: int, nbytes: int, ahead: int) -> Body | None:
        """Ask for a range, and for what is ahead if one more answer may wait; None at the end."""
        connection = self._bucket.connection()
        most = nbytes + (ahead if ahead and connection.parked.has_room() else 0)
        try:
            request = {**self._bucket.names(self._key), **self._version}
            span = f"bytes={offset}-{offset + most - 1}"
            return connection.get(offset, most, Range=span, **request)[0]
        except ClientError as error:
            if code_of(error) == "InvalidRange":
                return None
            raise


class S3Writer:
    """An upload in order: one PUT when small, else parts. The server checks each.

    The object appears with `commit`. Left by `abandon`, the parts are removed.
    """

    def __init__(self, bucket: Bucket, key: str, size: int) -> None:
        self._bucket = bucket
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
            put_object(self._bucket, self._key, bytes(memoryview(self._buffer)[: self._filled]))
            return
        if self._filled:
            self._send()
        with self._bucket.translated(f"writing {self._key}"):
            parts = [sent.result() for sent in self._sent]
            persist(lambda again: self._complete(parts, again), self._bucket.patience)

    def abandon(self) -> None:
        """Wait for parts under way and abort the upload."""
        self._given_up = True
        for sent in self._sent:
            sent.exception()
        if self._upload:
            client = self._bucket.connection().client
            names = self._bucket.names(self._key)
            with contextlib.suppress(Exception):
                persist(
                    lambda again: client.abort_multipart_upload(**names, UploadId=self._upload),
                    self._bucket.patience,
                )

    def _send(self) -> None:
        """Hand the filled part to an uploading thread."""
        connection = self._bucket.connection()
        with self._bucket.translated(f"writing {self._key}"):
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
        connection = self._bucket.connection()
        self._by_crc32 = checks_crc32(self._bucket)
        asked = {**self._bucket.names(self._key), **begun_with(self._by_crc32)}
        self._upload = persist(
            lambda again: connection.client.create_multipart_upload(**asked)["UploadId"],
            self._bucket.patience,
        )

    def _put_part(self, number: int, part: bytearray) -> dict[str, Any]:
        """Upload one part, again when it did not arrive as it was sent; how it is named."""
        connection = self._bucket.connection()
        try:
            if self._given_up:
                return {}
            checksum = part_with(self._by_crc32, part)
            place = {**self._bucket.names(self._key), "UploadId": self._upload}
            body = {"PartNumber": number, "Body": part, **checksum}
            answer = persist(
                lambda again: connection.client.upload_part(**place, **body), self._bucket.patience
            )
            return named_part(number, {**answer, **checksum})
        finally:
            connection.take_back(part)
            connection.parts_at_once.release()

    def _complete(self, parts: list[dict[str, Any]], again: bool) -> None:
        """Make one object of the parts; an earlier try whose answer was lost may have done it."""
        client, names = self._bucket.connection().client, self._bucket.names(self._key)
        try:
            client.complete_multipart_upload(
                **names, UploadId=self._upload, MultipartUpload={"Parts": parts}
            )
        except ClientError as error:
            if not again or not is_missing(error):
                raise
            if client.head_object(**names)["ContentLength"] != self._size:
                raise
