"""Checksums that uploads carry, so that a server refuses what arrived otherwise than it was sent.

Every S3 server checks Content-MD5, which costs 1.3 CPU seconds for each GB. Newer ones check a
CRC32 as well, for a fifth of that: where one was seen to, the parts of large uploads carry it.
An upload must be begun with a checksum of the full object; then it can be completed with whatever
parts there are, as resuming does, also where the server does not list their checksums.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import hashlib
import threading
import uuid
import zlib
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from resources.errors import StoreError, StoreUnreachableError
from resources.places.s3.client import code_of, passes, persist, status_of
from resources.store.names import PROBE

if TYPE_CHECKING:
    from resources.places.s3.place import S3Place

_WITH_CRC32 = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
_MISMATCHES = {"BadDigest", "XAmzContentChecksumMismatch"}


def md5(data: bytes | bytearray) -> str:
    """Return the value of Content-MD5."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def crc32(data: bytes | bytearray) -> str:
    """Return the value of x-amz-checksum-crc32."""
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


class PartChecksums:
    """What parts of uploads to one place carry; the first upload of a process finds it out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_crc32: bool | None = None

    def by_crc32(self, place: "S3Place") -> bool:
        """Whether parts carry a CRC32; else they carry an MD5.

        Raises:
            StoreUnreachableError: the server could not be asked.
        """
        with self._lock:
            if self._by_crc32 is None:
                self._by_crc32 = _checks_crc32(place)
            return self._by_crc32


def begun_with(by_crc32: bool) -> dict[str, str]:
    """Return what an upload says at its begin."""
    return _WITH_CRC32 if by_crc32 else {}


def part_with(by_crc32: bool, data: bytes | bytearray) -> dict[str, str]:
    """Return what a part says of its bytes."""
    return {"ChecksumCRC32": crc32(data)} if by_crc32 else {"ContentMD5": md5(data)}


def named_part(number: int, part: dict[str, Any]) -> dict[str, Any]:
    """Return how a completion names a part: as the server said or listed, or as it was sent."""
    kept = {name: part[name] for name in ("ETag", "ChecksumCRC32") if name in part}
    return {"PartNumber": number, **kept}


def _checks_crc32(place: "S3Place") -> bool:
    """Whether a part with a wrong CRC32 is refused, and an upload with one that is right completes.

    It is completed as one that was cut off is. Whatever else the server says means no.
    """
    client, key = place.connection().client, f"{PROBE}/{uuid.uuid4().hex}"
    names: dict[str, Any] = dict(place.names(key))
    done = False
    try:
        with place.translated("asking for CRC32"):
            begun = persist(
                lambda again: client.create_multipart_upload(**names, **_WITH_CRC32),
                place.patience,
            )
            names |= {"UploadId": begun["UploadId"], "PartNumber": 1, "Body": b"1"}
            if persist(lambda again: _refuses(client, names, crc32(b"0")), place.patience):
                right = crc32(b"1")
                persist(
                    lambda again: client.upload_part(**names, ChecksumCRC32=right), place.patience
                )
                place.salvage(key)
                done = place.read(key) is not None
    except StoreUnreachableError:
        raise
    except StoreError:
        done = False
    place.delete([key])
    if not done:
        place.drop_pending([key])
    return done


def _refuses(client: Any, part: dict[str, Any], checksum: str) -> bool:
    """Whether a part is refused because of its checksum."""
    try:
        client.upload_part(**part, ChecksumCRC32=checksum)
    except ClientError as error:
        if code_of(error) in _MISMATCHES or (status_of(error) == 400 and not passes(error)):
            return True
        raise
    return False
