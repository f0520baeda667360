"""A place in an S3 bucket. Endpoint and credentials are `aws_chain`'s business.

Every request is repeated with growing pauses while its fault may pass: an answer of 5xx, a reset,
a timeout, a body that breaks off, comes too slowly or has other bytes than its checksum says.
"""

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from blake3 import blake3
from botocore.exceptions import ClientError

from resources.places.place import Entry
from resources.places.s3.aws_chain import AwsSettings, read_aws_chain
from resources.places.s3.bodies import PARKED, Body
from resources.places.s3.checksums import md5
from resources.places.s3.client import (
    FAULTS,
    BrokenBodyError,
    Patience,
    Timeouts,
    explain,
    is_missing,
    make_client,
    persist,
    status_of,
)
from resources.places.s3.transfers import (
    GETS_AT_ONCE,
    PARTS_AT_ONCE,
    Connection,
    S3Reader,
    S3Writer,
)
from resources.places.s3.uploads import S3Uploads
from resources.store.names import PROBE

_FIRST_TIMEOUTS = Timeouts(connect=3.0, read=5.0)
_FIRST_PATIENCE = Patience(tries=7, seconds=15.0)
_CHECKSUM = "blake3"  # metadata of small objects: their own hash, to check what is read
_DELETED_AT_ONCE = 1000

Done = TypeVar("Done")


class S3Place:
    """Objects below `prefix` of `bucket`. The first use makes contact and says clearly if it fails.

    Attributes:
        patience: how often, and how long, an operation is tried.
        timeouts: what a single request may take.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self.patience = Patience()
        self.timeouts = Timeouts()
        self._settings: AwsSettings | None = None
        self._connection: Connection | None = None
        self._process = 0  # the one that made the connection: a forked child makes its own
        self._lock = threading.Lock()

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the object's bytes, checked against the hash kept with it, and its ETag."""
        try:
            return self._persist(f"reading {key}", lambda again: self._read(key))
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write the object, whatever is there."""
        self._persist(f"writing {key}", lambda again: self._put(key, data))

    def create(self, key: str, data: bytes) -> bool:
        """PUT with `If-None-Match: *`."""
        return self._put_if(f"creating {key}", key, data, {"IfNoneMatch": "*"})

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """PUT with `If-Match: <ETag>`."""
        return self._put_if(f"replacing {key}", key, data, {"IfMatch": tag})

    def walk(self, prefix: str) -> list[Entry]:
        """Every object below `prefix`."""
        return self._list(prefix)

    def children(self, prefix: str) -> list[Entry]:
        """Every object directly in `prefix`."""
        return self._list(prefix, Delimiter="/")

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, many to a request."""
        names = [{"Key": self.names(key)["Key"]} for key in keys]
        for at in range(0, len(names), _DELETED_AT_ONCE):
            batch = names[at : at + _DELETED_AT_ONCE]
            self._persist("deleting", lambda again, batch=batch: self._delete(batch))

    def open_writer(self, key: str, size: int) -> S3Writer:
        """Start an upload: one PUT when small, else parts; the object appears at the end."""
        return S3Writer(self, key, size)

    def open_reader(self, key: str) -> S3Reader:
        """Return a reader; nothing is fetched yet."""
        return S3Reader(self, key)

    def pending(self, prefix: str) -> list[Entry]:
        """Every multipart upload under way below `prefix`, or left by a process that was killed."""
        return S3Uploads(self).pending(prefix)

    def drop_pending(self, keys: Iterable[str]) -> None:
        """Abort uploads."""
        S3Uploads(self).abort(keys)

    def salvage(self, key: str) -> None:
        """Complete an upload with the parts that arrived."""
        S3Uploads(self).complete(key)

    def settle(self, prefix: str) -> None:
        """Do nothing: an object that exists is durable."""

    def now(self) -> float:
        """Return the server's clock, by the stamp of an object just written."""
        key = f"{PROBE}/{uuid.uuid4().hex}"
        self.put(key, b"")
        stamp = self._persist(
            f"reading {key}",
            lambda again: self.connection().client.head_object(**self.names(key))["LastModified"],
        )
        self.delete([key])
        return stamp.timestamp()

    def folder(self, prefix: str) -> Path | None:
        """Return None: nothing here is a local folder."""
        return None

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and session token in use."""
        self.connection()
        return self._settings.secrets() if self._settings else ()

    def names(self, key: str) -> dict[str, str]:
        """Return what a request says to name an object."""
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{key}" if self.prefix else key}

    def connection(self) -> Connection:
        """Return what this process has open; makes contact the first time.

        Raises:
            StoreError: the endpoint, the bucket or the credentials are not right.
        """
        with self._lock:
            if self._connection is None or self._process != os.getpid():
                self._settings = settings = read_aws_chain()
                settings.need_credentials()
                self._make_contact(settings)
                connections = GETS_AT_ONCE + PARTS_AT_ONCE + PARKED + 4
                client = make_client(settings, self.timeouts, connections)
                self._connection, self._process = Connection(client), os.getpid()
            return self._connection

    def opened(self) -> Connection | None:
        """Return what this process has open already; makes no contact."""
        return self._connection if self._process == os.getpid() else None

    @contextlib.contextmanager
    def translated(self, doing: str, endpoint: str | None = None) -> Iterator[None]:
        """Turn what a request ends with into our errors; a missing object is FileNotFoundError.

        The client's own text is not quoted or chained: it repeats the request.
        """
        try:
            yield
        except FAULTS as error:
            if is_missing(error):
                raise FileNotFoundError(f"{self.uri} has no object for {doing}") from None
            raise explain(self.uri, self.bucket, doing, error, endpoint) from None

    def _persist(self, doing: str, action: Callable[[bool], Done]) -> Done:
        self.connection()
        with self.translated(doing):
            return persist(action, self.patience)

    def _make_contact(self, settings: AwsSettings) -> None:
        """List once with few tries, so that a wrong endpoint, bucket or key is said at once."""
        client = make_client(settings, _FIRST_TIMEOUTS, 1)
        with self.translated("first contact", settings.endpoint):
            try:
                listing = {"Bucket": self.bucket, "Prefix": f"{self.prefix}/", "MaxKeys": 1}
                persist(lambda again: client.list_objects_v2(**listing), _FIRST_PATIENCE)
            finally:
                client.close()

    def _read(self, key: str) -> tuple[bytes, str]:
        answer = self.connection().client.get_object(**self.names(key))
        data = bytearray(int(answer["ContentLength"]))
        Body(answer, 0, len(data), self.connection().watch, self.timeouts).fill(memoryview(data))
        checksum = answer["Metadata"].get(_CHECKSUM)
        if checksum is not None and blake3(data).hexdigest() != checksum:
            raise BrokenBodyError("an object arrived with other bytes than were written")
        return bytes(data), answer["ETag"]

    def _put(self, key: str, data: bytes, **conditions: str) -> None:
        self.connection().client.put_object(
            **self.names(key),
            Body=data,
            ContentMD5=md5(data),
            Metadata={_CHECKSUM: blake3(data).hexdigest()},
            **conditions,
        )

    def _put_if(self, doing: str, key: str, data: bytes, condition: dict[str, str]) -> bool:
        """PUT under a condition; False when it does not hold.

        A try whose answer was lost may have succeeded: then the next one is refused because of
        it, and what is there tells.
        """

        def go(again: bool) -> bool:
            try:
                self._put(key, data, **condition)
            except ClientError as error:
                if status_of(error) == 412 or is_missing(error):
                    return again and self._holds(key, data)
                raise
            return True

        return self._persist(doing, go)

    def _holds(self, key: str, data: bytes) -> bool:
        found = self.read(key)
        return found is not None and found[0] == data

    def _list(self, prefix: str, **options: str) -> list[Entry]:
        entries: list[Entry] = []
        query = {"Bucket": self.bucket, "Prefix": self.names(_below(prefix))["Key"], **options}
        strip = len(self.names("")["Key"])
        while True:
            page = self._persist(
                f"listing {prefix}",
                lambda again: self.connection().client.list_objects_v2(**query),
            )
            for found in page.get("Contents", []):
                key = found["Key"][strip:]
                if not key.endswith("/"):  # some servers list folders too
                    entries.append(Entry(key, found["Size"], found["LastModified"].timestamp()))
            if not page.get("IsTruncated"):
                return sorted(entries, key=lambda entry: entry.key)
            query["ContinuationToken"] = page["NextContinuationToken"]

    def _delete(self, names: list[dict[str, str]]) -> None:
        answer = self.connection().client.delete_objects(
            Bucket=self.bucket, Delete={"Objects": names, "Quiet": True}
        )
        for fault in answer.get("Errors", []):
            code = str(fault.get("Code", ""))
            if code != "NoSuchKey":
                status = 403 if code == "AccessDenied" else 503
                raise ClientError(
                    {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
                    "DeleteObjects",
                )


def _below(prefix: str) -> str:
    return f"{prefix}/" if prefix else ""
