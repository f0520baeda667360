"""Small objects of a bucket, whole: read, written, and compared with the hash kept beside them."""

from typing import Any

from blake3 import blake3
from botocore.exceptions import ClientError

from resources.places.place import LARGEST
from resources.places.s3.bucket import Bucket
from resources.places.s3.checksums import md5
from resources.places.s3.client import BrokenBodyError, is_missing, status_of

_CHECKSUM = "blake3"  # metadata of small objects: their own hash, to check what is read


def read_object(bucket: Bucket, key: str) -> tuple[bytes, str] | None:
    """Return an object's bytes, checked against the hash kept with it, and its ETag, or None.

    The first bytes of one that is larger than what a store writes in this way are not checked.
    """

    def go(again: bool) -> tuple[bytes, str]:
        body, answer = bucket.connection().get(0, None, **bucket.names(key))
        data = bytearray(min(body.left, LARGEST))
        body.fill(memoryview(data))
        if body.left:
            body.close()
            return bytes(data), answer["ETag"]
        checksum = answer["Metadata"].get(_CHECKSUM)
        if checksum is not None and blake3(data).hexdigest() != checksum:
            raise BrokenBodyError("an object arrived with other bytes than were written")
        return bytes(data), answer["ETag"]

    try:
        return bucket.persist(f"reading {key}", go)
    except FileNotFoundError:
        return None


def put_object(bucket: Bucket, key: str, data: bytes) -> None:
    """Write an object, whatever is there."""
    bucket.persist(f"writing {key}", lambda again: _put(bucket, key, data, {}))


def put_object_if(
    bucket: Bucket, doing: str, key: str, data: bytes, condition: dict[str, str]
) -> bool:
    """Write an object under a condition; False when it does not hold.

    A try whose answer was lost may have succeeded: then the next one is refused because of it, and
    what is there tells.
    """

    def go(again: bool) -> bool:
        try:
            _put(bucket, key, data, condition)
        except ClientError as error:
            if status_of(error) == 412 or is_missing(error):
                found = read_object(bucket, key) if again else None
                return found is not None and found[0] == data
            raise
        return True

    return bucket.persist(doing, go)


def _put(bucket: Bucket, key: str, data: bytes, condition: dict[str, str]) -> None:
    request: dict[str, Any] = {**bucket.names(key), **condition}
    bucket.connection().client.put_object(
        Body=data, ContentMD5=md5(data), Metadata={_CHECKSUM: blake3(data).hexdigest()}, **request
    )
