"""A place in an S3 bucket. Endpoint and credentials are `aws_chain`'s business.

Every request is repeated with growing pauses while its fault may pass: an answer of 5xx, a reset,
a timeout, a body that breaks off, comes too slowly or has other bytes than its checksum says.
"""

import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from resources.places.place import PROBE, Entry
from resources.places.s3.bucket import ARTIFACT_STORE, Bucket, Role
from resources.places.s3.objects import put_object, put_object_if, read_object
from resources.places.s3.transfers import S3Reader, S3Writer
from resources.places.s3.uploads import S3Uploads

_DELETED_AT_ONCE = 1000


class S3Place:
    """Objects below a prefix of a bucket.

    The first use makes contact and says clearly if it fails.
    """

    readers = 16

    def __init__(self, bucket: str, prefix: str, role: Role = ARTIFACT_STORE) -> None:
        self.bucket = Bucket(bucket, prefix, role)
        self.uri = self.bucket.uri

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the object's bytes, checked against the hash kept with it, and its ETag."""
        return read_object(self.bucket, key)

    def put(self, key: str, data: bytes) -> None:
        """Write the object, whatever is there."""
        put_object(self.bucket, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write the object by a PUT with `If-None-Match: *`."""
        return put_object_if(self.bucket, f"creating {key}", key, data, {"IfNoneMatch": "*"})

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """Write the object by a PUT with `If-Match: <ETag>`."""
        return put_object_if(self.bucket, f"replacing {key}", key, data, {"IfMatch": tag})

    def walk(self, prefix: str) -> list[Entry]:
        """Return every object below `prefix`."""
        return self._list(prefix)

    def children(self, prefix: str) -> list[Entry]:
        """Return every object directly in `prefix`."""
        return self._list(prefix, Delimiter="/")

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, many to a request."""
        names = [{"Key": self.bucket.names(key)["Key"]} for key in keys]
        for at in range(0, len(names), _DELETED_AT_ONCE):
            batch = names[at : at + _DELETED_AT_ONCE]
            self.bucket.persist("deleting", lambda again, batch=batch: self._delete(batch))

    def open_writer(self, key: str, size: int) -> S3Writer:
        """Start an upload: one PUT when small, else parts; the object appears at the end."""
        return S3Writer(self.bucket, key, size)

    def open_reader(self, key: str, tag: str = "") -> S3Reader:
        """Return a reader; nothing is fetched yet."""
        return S3Reader(self.bucket, key, tag)

    def pending(self, prefix: str) -> list[Entry]:
        """Return every multipart upload below `prefix`, under way or left by a killed process."""
        return S3Uploads(self.bucket).pending(prefix)

    def drop_pending(self, keys: Iterable[str]) -> None:
        """Abort uploads."""
        S3Uploads(self.bucket).abort(keys)

    def salvage(self, key: str) -> None:
        """Complete an upload with the parts that arrived."""
        S3Uploads(self.bucket).complete(key)

    def settle(self, prefix: str) -> None:
        """Do nothing: an object that exists is durable."""

    def now(self) -> float:
        """Return the server's clock, by the stamp of an object just written."""
        key = f"{PROBE}/{uuid.uuid4().hex}"
        self.put(key, b"")
        names, client = self.bucket.names(key), self.bucket.connection().client
        stamp = self.bucket.persist(
            f"reading {key}", lambda again: client.head_object(**names)["LastModified"]
        )
        self.delete([key])
        return stamp.timestamp()

    def folder(self, prefix: str) -> Path | None:
        """Return None: nothing here is a local folder."""
        return None

    def fault(self) -> str | None:
        """Return None: a bucket that is not there is told by whatever is asked of it."""
        return None

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and session token in use."""
        return self.bucket.secrets()

    def _list(self, prefix: str, **options: str) -> list[Entry]:
        entries: list[Entry] = []
        below = self.bucket.names(_below(prefix))
        query = {"Bucket": below["Bucket"], "Prefix": below["Key"], **options}
        strip = len(self.bucket.names("")["Key"])
        client = self.bucket.connection().client
        while True:
            page: dict[str, Any] = self.bucket.persist(
                f"listing {prefix}", lambda again: client.list_objects_v2(**query)
            )
            for item in page.get("Contents", []):
                key = item["Key"][strip:]
                if not key.endswith("/"):  # some servers list folders too
                    changed = item["LastModified"].timestamp()
                    entries.append(Entry(key, item["Size"], changed, item["ETag"]))
            if not page.get("IsTruncated"):
                return sorted(entries, key=lambda entry: entry.key)
            query["ContinuationToken"] = page["NextContinuationToken"]

    def _delete(self, names: list[dict[str, str]]) -> None:
        answer = self.bucket.connection().client.delete_objects(
            Bucket=self.bucket.name, Delete={"Objects": names, "Quiet": True}
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
