"""Multipart uploads that nobody finished: listed, aborted, or completed with what is there.

obstore has no call for any of it, so this goes through botocore, by the same AWS chain. MinIO lists
an upload only when asked for its whole key, so there gc leaves them to MinIO's own sweep (a day).
"""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from resources.aws_chain import read_aws_chain
from resources.errors import StoreAccessError, StoreFailureError, StoreUnreachableError
from resources.places import Entry

_GONE = ("NoSuchUpload", "404", "NoSuchKey", "NotFound")


class S3Uploads:
    """The uploads below `prefix` of `bucket`; keys are without that prefix. Thread-safe."""

    def __init__(self, bucket: str, prefix: str, uri: str) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._uri = uri

    def pending(self, prefix: str) -> list[Entry]:
        """Every upload below the folder `prefix`, by key; those of one key are one entry."""
        found: dict[str, Entry] = {}
        for upload in self._uploads(f"{prefix}/"):
            key = upload["Key"].removeprefix(self._root)
            begun = upload["Initiated"].timestamp()
            size = sum(part["Size"] for part in self._parts(key, upload["UploadId"]))
            known = found.get(key)
            if known is not None:
                size, begun = size + known.size, max(begun, known.modified)
            found[key] = Entry(key, size, begun)
        return [found[key] for key in sorted(found)]

    def abort(self, keys: Iterable[str]) -> None:
        """Abort every upload of these keys; one that is gone is no error."""
        for key in keys:
            for upload in self._of(key):
                with self._translated(f"aborting the upload of {key}"), _gone_is_fine():
                    self._client.abort_multipart_upload(
                        Bucket=self._bucket, Key=self._root + key, UploadId=upload["UploadId"]
                    )

    def complete(self, key: str) -> None:
        """Complete the last upload of `key` with its first parts, up to the first that is missing.

        Where there is no upload or no first part, nothing happens.
        """
        uploads = sorted(self._of(key), key=lambda upload: upload["Initiated"])
        parts = self._parts(key, uploads[-1]["UploadId"]) if uploads else []
        there = [
            {"PartNumber": part["PartNumber"], "ETag": part["ETag"]}
            for number, part in enumerate(parts, start=1)
            if part["PartNumber"] == number
        ]
        if not there:
            return
        with self._translated(f"completing the upload of {key}"), _gone_is_fine():
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._root + key,
                UploadId=uploads[-1]["UploadId"],
                MultipartUpload={"Parts": there},
            )

    @functools.cached_property
    def _client(self) -> Any:
        settings = read_aws_chain()
        options = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 8},
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
        )
        return botocore.session.get_session().create_client(
            "s3", region_name=settings.region, endpoint_url=settings.endpoint, config=options
        )

    def _of(self, key: str) -> list[dict[str, Any]]:
        """The uploads of exactly this key."""
        found = self._uploads(key)
        return [upload for upload in found if upload["Key"] == self._root + key]

    def _uploads(self, prefix: str) -> list[dict[str, Any]]:
        with self._translated(f"listing the uploads below {prefix}"):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._root + prefix
            )
            return [upload for page in pages for upload in page.get("Uploads", [])]

    def _parts(self, key: str, upload: str) -> list[dict[str, Any]]:
        """The parts that arrived, by number; none of an upload that is gone."""
        found: list[dict[str, Any]] = []
        with self._translated(f"listing the parts of {key}"), _gone_is_fine():
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self._bucket, Key=self._root + key, UploadId=upload
            )
            for page in pages:
                found += page.get("Parts", [])
        return sorted(found, key=lambda part: part["PartNumber"])

    @contextlib.contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        """Turn botocore's errors into ours; its text, which may repeat a request, is not kept."""
        where = f"artifact store {self._uri}: {doing} failed"
        try:
            yield
        except ClientError as error:
            code, status = _code(error), error.response["ResponseMetadata"].get("HTTPStatusCode")
            if status in (401, 403):
                raise StoreAccessError(
                    f"{where}: the server refused the credentials ({code}); check that the key may "
                    f"list, complete and abort multipart uploads of this bucket"
                ) from None
            raise StoreFailureError(
                f"{where}: the server answered {status} {code}; see its log and retry"
            ) from None
        except BotoCoreError as error:
            raise StoreUnreachableError(
                f"{where}: {type(error).__name__}; check AWS_ENDPOINT_URL, the network and that "
                f"the server runs"
            ) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    """Somebody else aborted or completed the upload meanwhile."""
    try:
        yield
    except ClientError as error:
        if _code(error) not in _GONE:
            raise
