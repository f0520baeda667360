"""Checksums that uploads carry, so that a server refuses what arrived otherwise than it was sent.

Every S3 server checks Content-MD5, which costs 1.3 CPU seconds for each GB. Newer ones check a
CRC32 as well, for a fifth of that: where one was seen to, the parts of large uploads carry it.
An upload must be begun with a checksum of the full object; then it can be completed with whatever
parts there are, as resuming does, also where the server does not list their checksums.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import hashlib
import uuid
import zlib
from typing import Any

from botocore.exceptions import ClientError

from resources.errors import StoreError, StoreUnreachableError
from resources.places.place import PROBE
from resources.places.s3.bucket import Bucket
from resources.places.s3.client import code_of, passes, status_of
from resources.places.s3.uploads import S3Uploads

_WITH_CRC32 = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
_MISMATCHES = {"BadDigest", "XAmzContentChecksumMismatch"}


def md5(data: bytes | bytearray) -> str:
    """Return the value of Content-MD5."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def crc32(data: bytes | bytearray) -> str:
    """Return the value of x-amz-checksum-crc32."""
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def checks_crc32(bucket: Bucket) -> bool:
    """Return whether parts shall carry a CRC32; else they carry an MD5.

    The first upload of a process asks the server. StoreUnreachableError is raised where it could
    not be asked.
    """
    connection = bucket.connection()
    with connection.asking:
        if connection.checks_crc32 is None:
            connection.checks_crc32 = _ask(bucket)
        return connection.checks_crc32


def begun_with(by_crc32: bool) -> dict[str, str]:
    """Return what an upload says at its begin."""
    return _WITH_CRC32 if by_crc32 else {}


def part_with(by_crc32: bool, data: bytes | bytearray) -> dict[str, str]:
    """Return what a part says of its bytes."""
    return {"ChecksumCRC32": crc32(data)} if by_crc32 else {"ContentMD5": md5(data)}


def _ask(bucket: Bucket) -> bool:
    """Whether a part with a wrong CRC32 is refused, and an upload with one that is right completes.

    It is completed as one that was cut off is. Whatever else the server says means no.
    """
    client, key = bucket.connection().client, f"{PROBE}/{uuid.uuid4().hex}"
    uploads, names = S3Uploads(bucket), bucket.names(key)
    done = False
    try:
        begun = bucket.persist(
            "asking for CRC32",
            lambda again: client.create_multipart_upload(**names, **_WITH_CRC32),
        )
        part: dict[str, Any] = {**names, "UploadId": begun["UploadId"], "PartNumber": 1}
        part["Body"] = b"1"
        if bucket.persist("asking for CRC32", lambda again: _refuses(client, part, crc32(b"0"))):
            right = crc32(b"1")
            bucket.persist(
                "asking for CRC32", lambda again: client.upload_part(**part, ChecksumCRC32=right)
            )
            uploads.complete(key)
            bucket.persist("asking for CRC32", lambda again: client.head_object(**names))
            done = True
    except StoreUnreachableError:
        raise
    except (StoreError, FileNotFoundError):
        done = False
    bucket.persist(f"deleting {key}", lambda again: client.delete_object(**names))
    if not done:
        uploads.abort([key])
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
