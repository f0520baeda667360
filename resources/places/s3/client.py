"""One botocore client for S3, and patience with what servers and networks do to its requests.

botocore repeats nothing here: its retries end where a body begins, and they hide whether a request
that failed may have been done all the same. `persist` repeats whole operations instead.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from resources.errors import (
    ObjectChangedError,
    StoreAccessError,
    StoreAddressError,
    StoreError,
    StoreFailureError,
    StoreInterruptedError,
    StoreUnreachableError,
)
from resources.places.s3.aws_chain import AwsSettings

FAULTS = (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError)
"""Everything that a request can end with."""

_PASSING_STATUS = {408, 425, 429}
_PASSING_CODES = {
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError",
    "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown",
    "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_PASSING = (
    NoConnectionError, HTTPClientError, ResponseStreamingError, IncompleteReadError,
    ResponseParserError, HTTPError, OSError,
)  # fmt: skip
_BROKEN_OFF = (
    ConnectionClosedError, ResponseStreamingError, IncompleteReadError, ResponseParserError,
    HTTPError,
)  # fmt: skip

Done = TypeVar("Done")


@dataclass(frozen=True)
class Patience:
    """How often an operation is tried, and how long: seconds, the first pause and the longest."""

    tries: int = 12
    seconds: float = 120.0
    first_pause: float = 0.05
    longest_pause: float = 5.0

    def pause(self, number: int) -> float:
        """Return the seconds to wait after failure `number`: doubled each time, and spread."""
        longest = min(self.longest_pause, self.first_pause * 2.0**number)
        return longest * random.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Timeouts:
    """Seconds: to connect (and to send one part), to wait for any answer; and the slowest body.

    While a body is read it may fall behind the rate of `slowest` bytes a second by `read` seconds.
    """

    connect: float = 20.0
    read: float = 20.0
    slowest: float = 256 << 10


class BrokenBodyError(OSError):
    """A body ended too early, came too slowly, or has not the bytes its checksum says."""


def make_client(settings: AwsSettings, timeouts: Timeouts, connections: int) -> Any:
    """Return a botocore S3 client.

    Bodies are not signed: SeaweedFS and Ceph do not check that hash. Checksums that they do check
    (see s3_checksums) are signed in its place. An endpoint of one's own is addressed by path,
    unless the profile says otherwise.
    """
    style = settings.addressing_style or ("path" if settings.endpoint else "auto")
    config = Config(
        connect_timeout=timeouts.connect,
        read_timeout=timeouts.read,
        max_pool_connections=connections,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": style, "payload_signing_enabled": False},
    )
    return settings.session.create_client(
        "s3",
        region_name=settings.region,
        endpoint_url=settings.endpoint,
        verify=settings.bundle,
        config=config,
    )


def persist(action: Callable[[bool], Done], patience: Patience) -> Done:
    """Call `action` until it succeeds, fails for good, or patience ends; raises its last error.

    It is told whether it was called before: what it asks for may then be done already.
    """
    deadline = time.monotonic() + patience.seconds
    for number in range(patience.tries):
        try:
            return action(number > 0)
        except FAULTS as error:
            pause = patience.pause(number)
            late = time.monotonic() + pause > deadline
            if not passes(error) or late or number + 1 == patience.tries:
                raise
        time.sleep(pause)
    raise AssertionError("patience has at least one try")


def code_of(error: Exception) -> str:
    """Return the S3 error code, or the HTTP status as text; empty when there is none."""
    response: Any = error.response if isinstance(error, ClientError) else {}
    return str(response.get("Error", {}).get("Code", ""))


def status_of(error: Exception) -> int:
    """Return the HTTP status that S3 answered with; 0 when there is none."""
    response: Any = error.response if isinstance(error, ClientError) else {}
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: Exception) -> bool:
    """Return whether S3 said that there is no such object."""
    return status_of(error) == 404 and code_of(error) != "NoSuchBucket"


def explain(
    where: str, bucket: str, rights: str, error: Exception, endpoint: str | None
) -> StoreError:
    """Return our error for a fault, of whose text only the S3 code and the status are kept.

    `where` begins the sentence: what was done, with what, and that it failed. `rights` are what one
    must be allowed to do with the bucket's objects.
    """
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        return StoreAddressError(
            f"{where}: there is no bucket {bucket!r}; make it, or correct the URI"
        )
    if status in (401, 403):
        said = code if code and not code.isdigit() else status
        return StoreAccessError(
            f"{where}: the server refused the credentials ({said}); check the key, and that it "
            f"may {rights} objects of this bucket"
        )
    if status == 412:
        return ObjectChangedError(f"{where}: the object is not the one that was listed; run again")
    if status:
        failure = StoreInterruptedError if passes(error) else StoreFailureError
        return failure(
            f"{where}: the server answered {status} {code}".rstrip() + "; see its log and retry"
        )
    if isinstance(error, BrokenBodyError):
        return StoreInterruptedError(
            f"{where}: {error}; check the network and the server, and retry"
        )
    if isinstance(error, _BROKEN_OFF):
        return StoreInterruptedError(
            f"{where}: the connection broke off again and again ({type(error).__name__}); check "
            f"the network and the server, and retry"
        )
    if isinstance(error, (NoConnectionError, HTTPClientError, OSError)):
        at = f" at {_without_user(endpoint)}" if endpoint else ""
        return StoreUnreachableError(
            f"{where}: no answer{at} from the endpoint; check AWS_ENDPOINT_URL, the network and "
            f"that the server runs"
        )
    return StoreFailureError(f"{where}: {type(error).__name__}")


def passes(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    status = status_of(error)
    if status:
        return (
            status >= 500 or status in _PASSING_STATUS or code_of(error) in _PASSING_CODES
        ) and code_of(error) != "NotImplemented"
    return isinstance(error, _PASSING) and not isinstance(error, (SSLError, FileNotFoundError))


def _without_user(endpoint: str) -> str:
    scheme, separator, rest = endpoint.partition("://")
    return scheme + separator + rest.rpartition("@")[2]
