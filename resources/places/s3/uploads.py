"""Multipart uploads that nobody finished: listed, aborted, or completed with what is there.

MinIO lists an upload only when asked for its whole key, so there gc leaves them to MinIO's own
sweep, after a day.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from resources.places.place import Entry
from resources.places.s3.bucket import Bucket
from resources.places.s3.client import is_missing

Done = TypeVar("Done")


def named_part(number: int, part: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a completion names a part: as the server said or listed, or as it was sent."""
    kept = {name: part[name] for name in ("ETag", "ChecksumCRC32") if name in part}
    return {"PartNumber": number, **kept}


class S3Uploads:
    """The uploads of one place. That one is gone meanwhile is never an error."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def pending(self, prefix: str) -> list[Entry]:
        """Return every upload below the folder `prefix`, by key; those of one key are one entry."""
        entries: dict[str, Entry] = {}
        for key, upload in self._uploads(f"{prefix}/"):
            begun = upload["Initiated"].timestamp()
            size = sum(part["Size"] for part in self._parts(key, upload["UploadId"]))
            known = entries.get(key)
            if known is not None:
                size, begun = size + known.size, max(begun, known.modified)
            entries[key] = Entry(key, size, begun)
        return [entries[key] for key in sorted(entries)]

    def abort(self, keys: Iterable[str]) -> None:
        """Abort every upload of these keys."""
        for key in keys:
            for upload in self._of(key):
                names = {**self._bucket.names(key), "UploadId": upload["UploadId"]}
                doing = f"aborting the upload of {key}"
                self._ask(doing, lambda client, n=names: client.abort_multipart_upload(**n), None)

    def complete(self, key: str) -> None:
        """Complete the last upload of `key` with its first parts, up to the first that is missing.

        Where there is no upload or no first part, nothing happens.
        """
        uploads = sorted(self._of(key), key=lambda upload: upload["Initiated"])
        parts = self._parts(key, uploads[-1]["UploadId"]) if uploads else []
        there = [
            named_part(number, part)
            for number, part in enumerate(parts, start=1)
            if part["PartNumber"] == number
        ]
        if there:
            names = {**self._bucket.names(key), "UploadId": uploads[-1]["UploadId"]}
            self._ask(
                f"completing the upload of {key}",
                lambda client: client.complete_multipart_upload(
                    **names, MultipartUpload={"Parts": there}
                ),
                None,
            )

    def _of(self, key: str) -> list[dict[str, Any]]:
        """The uploads of exactly this key."""
        return [upload for found, upload in self._uploads(key) if found == key]

    def _uploads(self, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        """Every upload whose key starts with `prefix`, with its key in this place."""
        names = self._bucket.names(prefix)
        root = len(names["Key"]) - len(prefix)

        def ask(client: Any) -> list[tuple[str, dict[str, Any]]]:
            pages = client.get_paginator("list_multipart_uploads").paginate(
                Bucket=names["Bucket"], Prefix=names["Key"]
            )
            return [
                (each["Key"][root:], each) for page in pages for each in page.get("Uploads", [])
            ]

        return self._ask(f"listing the uploads below {prefix}", ask, [])

    def _parts(self, key: str, upload: str) -> list[dict[str, Any]]:
        """The parts that arrived, by number."""

        def ask(client: Any) -> list[dict[str, Any]]:
            pages = client.get_paginator("list_parts").paginate(
                **self._bucket.names(key), UploadId=upload
            )
            return [part for page in pages for part in page.get("Parts", [])]

        found = self._ask(f"listing the parts of {key}", ask, [])
        return sorted(found, key=lambda part: part["PartNumber"])

    def _ask(self, doing: str, request: Callable[[Any], Done], gone: Done) -> Done:
        """Make a request, with the bucket's patience; `gone` where there is no such upload."""
        client = self._bucket.connection().client

        def go(again: bool) -> Done:
            try:
                return request(client)
            except ClientError as error:
                if is_missing(error):
                    return gone
                raise

        return self._bucket.persist(doing, go)
