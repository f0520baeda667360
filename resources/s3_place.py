"""A place in an S3 bucket, through obstore. Endpoint and credentials are `aws_chain`'s business."""

import contextlib
import functools
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PreconditionError
from obstore.store import S3Store

from resources.aws_chain import AwsSettings, read_aws_chain
from resources.errors import (
    StoreAccessError,
    StoreAddressError,
    StoreError,
    StoreFailureError,
    StoreUnreachableError,
)
from resources.places import Entry
from resources.store_names import PROBE

if TYPE_CHECKING:
    from resources.s3_uploads import S3Uploads

_PART = 8 << 20  # bytes of one part of an upload; at most _AT_ONCE parts are held in memory
_AT_ONCE = 4
_MOST_PARTS = 9_000  # S3 allows 10,000
_PIECE = 32 << 20  # bytes of one ranged GET
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_TIMEOUTS = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "300s"}
_FIRST_TIMEOUTS = {"connect_timeout": "3s", "read_timeout": "10s", "timeout": "10s"}


class S3Place:
    """Objects below `prefix` of `bucket`. The first use makes contact and says clearly if it fails.

    A process forked after that first use is refused: obstore's threads do not survive a fork, and
    it would wait for ever.
    """

    _process: int | None = None  # the one whose obstore threads run

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._client: S3Store | None = None
        self._settings: AwsSettings | None = None

    def read(self, key: str) -> tuple[bytes, str] | None:
        """Return the object's bytes and its ETag, or None."""
        try:
            with self._translated(f"reading {key}"):
                found = obstore.get(self._store(), key)
                return found.bytes().to_bytes(), found.meta["e_tag"] or ""
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write the object, whatever is there."""
        with self._translated(f"writing {key}"):
            obstore.put(self._store(), key, data, use_multipart=False)

    def create(self, key: str, data: bytes) -> bool:
        """PUT with `If-None-Match: *`."""
        try:
            with self._translated(f"creating {key}"):
                obstore.put(self._store(), key, data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    def replace(self, key: str, data: bytes, tag: str) -> bool:
        """PUT with `If-Match: <ETag>`."""
        try:
            with self._translated(f"replacing {key}"):
                obstore.put(self._store(), key, data, mode={"e_tag": tag})
        except (PreconditionError, AlreadyExistsError, FileNotFoundError):
            return False
        return True

    def walk(self, prefix: str) -> list[Entry]:
        """Every object below `prefix`."""
        with self._translated(f"listing {prefix}"):
            pages = obstore.list(self._store(), prefix)
            return sorted(
                (_entry(meta) for page in pages for meta in page), key=lambda entry: entry.key
            )

    def children(self, prefix: str) -> list[Entry]:
        """Every object directly in `prefix`."""
        with self._translated(f"listing {prefix}"):
            found = obstore.list_with_delimiter(self._store(), prefix)["objects"]
            return sorted((_entry(meta) for meta in found), key=lambda entry: entry.key)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, many to a request."""
        names = list(keys)
        with self._translated("deleting"), contextlib.suppress(FileNotFoundError):
            if names:
                obstore.delete(self._store(), names)

    def open_writer(self, key: str, size: int) -> "S3Writer":
        """Start an upload: one PUT when small, else parts; the object appears at the end."""
        return S3Writer(self, key, max(_PART, -(-size // _MOST_PARTS)))

    def open_reader(self, key: str) -> "S3Reader":
        """Return a reader; nothing is fetched yet."""
        return S3Reader(self, key)

    def pending(self, prefix: str) -> list[Entry]:
        """Every multipart upload under way below `prefix`, or left by a process that was killed."""
        return self._uploads.pending(prefix)

    def drop_pending(self, keys: Iterable[str]) -> None:
        """Abort uploads."""
        self._uploads.abort(keys)

    def salvage(self, key: str) -> None:
        """Complete an upload with the parts that arrived."""
        self._uploads.complete(key)

    def settle(self, prefix: str) -> None:
        """Do nothing: an object that exists is durable."""

    def now(self) -> float:
        """Return the server's clock, by the stamp of an object just written."""
        key = f"{PROBE}/{uuid.uuid4().hex}"
        self.put(key, b"")
        with self._translated(f"reading {key}"):
            stamp = obstore.head(self._store(), key)["last_modified"].timestamp()
        self.delete([key])
        return stamp

    def folder(self, prefix: str) -> Path | None:
        """Return None: nothing here is a local folder."""
        return None

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and session token in use."""
        self._store()
        return self._settings.secrets() if self._settings else ()

    @functools.cached_property
    def _uploads(self) -> "S3Uploads":
        from resources.s3_uploads import S3Uploads

        self._store()  # makes contact, and says clearly what is wrong
        return S3Uploads(self.bucket, self.prefix, self.uri)

    def _store(self) -> S3Store:
        if S3Place._process not in (None, os.getpid()):
            raise StoreFailureError(
                f"artifact store {self.uri}: this process was forked from one that uses S3, which "
                f"cannot work; start it by 'spawn' or 'forkserver' instead of 'fork'"
            )
        if self._client is None:
            self._settings = settings = read_aws_chain()
            S3Place._process = os.getpid()
            self._make_contact(settings)
            self._client = self._make(settings, _TIMEOUTS, retries=8, seconds=60)
        return self._client

    def _make(
        self, settings: AwsSettings, timeouts: dict[str, str], retries: int, seconds: int
    ) -> S3Store:
        options: dict[str, Any] = {**timeouts, "allow_http": True}
        if settings.root_certificate:
            options["root_certificate"] = settings.root_certificate
        config: dict[str, Any] = {"region": settings.region, **settings.obstore_credentials()}
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            client_options=options,  # type: ignore[arg-type]
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=seconds)},
            **config,
        )

    def _make_contact(self, settings: AwsSettings) -> None:
        """List once with few retries, so that a wrong endpoint, bucket or key is said at once."""
        first = self._make(settings, _FIRST_TIMEOUTS, retries=2, seconds=10)
        with self._translated("first contact", settings.endpoint):
            obstore.list_with_delimiter(first)

    @contextlib.contextmanager
    def _translated(self, doing: str, endpoint: str | None = None) -> Iterator[None]:
        """Turn obstore's errors into ours; outcomes the caller handles pass through.

        obstore's own text is not quoted or chained: it repeats the request.
        """
        try:
            yield
        except (AlreadyExistsError, PreconditionError, StoreError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in _CODE.findall(str(error)):
                raise _explain(self.uri, self.bucket, doing, error, endpoint) from None
            raise
        except BaseError as error:
            raise _explain(self.uri, self.bucket, doing, error, endpoint) from None


class S3Writer:
    """An upload in order. Left by `abandon`, its parts are aborted and nothing appears."""

    def __init__(self, place: S3Place, key: str, part: int) -> None:
        self._place = place
        self._key = key
        self._file = obstore.open_writer(
            place._store(), key, buffer_size=part, max_concurrency=_AT_ONCE
        )

    def write(self, data: memoryview) -> None:
        """Append bytes; waits when too many parts are under way."""
        with self._place._translated(f"writing {self._key}"):
            self._file.write(data)

    def commit(self) -> None:
        """Finish the upload; the object exists when this returns."""
        with self._place._translated(f"writing {self._key}"):
            self._file.close()

    def abandon(self) -> None:
        """Abort the upload."""
        with contextlib.suppress(Exception):
            self._file.__exit__(RuntimeError, RuntimeError("abandoned"), None)


class S3Reader:
    """Ranged GETs on one object, thread-safe."""

    def __init__(self, place: S3Place, key: str) -> None:
        self._place = place
        self._key = key

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` by ranged GETs of at most 32 MiB; short only at the end of the object."""
        done = 0
        with self._place._translated(f"reading {self._key}"):
            while done < len(buffer):
                want = min(_PIECE, len(buffer) - done)
                got = memoryview(
                    obstore.get_range(
                        self._place._store(), self._key, start=offset + done, length=want
                    )
                )
                buffer[done : done + len(got)] = got
                done += len(got)
                if len(got) < want:
                    break
        return done

    def close(self) -> None:
        """Do nothing: no connection is held."""


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())


def _explain(
    uri: str, bucket: str, doing: str, error: Exception, endpoint: str | None
) -> StoreError:
    """Our error for obstore's, of whose text only the S3 code and the HTTP status are kept."""
    text = str(error)
    code = next(iter(_CODE.findall(text)), "")
    status = next(iter(_STATUS.findall(text)), "")
    where = f"artifact store {uri}: {doing} failed"
    if code == "NoSuchBucket":
        return StoreAddressError(
            f"{where}: there is no bucket {bucket!r}; make it, or correct the store's URI"
        )
    if status in ("401", "403") or "the necessary privileges" in text:
        return StoreAccessError(
            f"{where}: the server refused the credentials ({code or status or 'no code'}); check "
            f"the key, and that it may get, put, delete and list objects of this bucket"
        )
    if status:
        return StoreFailureError(
            f"{where}: the server answered {status} {code}".rstrip() + "; see its log and retry"
        )
    if not isinstance(error, GenericError):
        return StoreFailureError(f"{where}: {type(error).__name__}")
    at = f" at {_without_user(endpoint)}" if endpoint else ""
    return StoreUnreachableError(
        f"{where}: no answer{at} from the endpoint; check AWS_ENDPOINT_URL, the network and that "
        f"the server runs"
    )


def _without_user(endpoint: str) -> str:
    return re.sub(r"//[^/@]*@", "//", endpoint)
