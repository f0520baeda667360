"""One request to a server over HTTP, made again where that may help.

Python's own client follows the usual proxy variables. What a request means, and what its failure is
called, is said by whoever makes it: a benchmark's file, a judge's grade, a webhook.
"""

import contextlib
import http.client
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resources.errors import RequestFailedError

if TYPE_CHECKING:
    from urllib.request import OpenerDirector, Request

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which another try may help; from 500 on it always may."""
_SERVER_ERROR = 500
_TOLD = 300  # bytes of an answer with an error, which may be repeated to the user


@dataclass(frozen=True)
class Tries:
    """Says how often a server is asked, and how long it is waited for.

    `count` tries in all; `pause` seconds before the second one, and twice as long before each
    further one; `answer` seconds of silence end a try.
    """

    count: int
    pause: float
    answer: float


def answer_to(
    request: "Request", tries: Tries, most: int, opener: "OpenerDirector | None" = None
) -> bytes:
    """Return the body of the answer to a request, at most `most` bytes of it.

    `opener` makes the request in place of urllib's own. Raises RequestFailedError.
    """
    for number in range(1, tries.count + 1):
        if number > 1:
            time.sleep(tries.pause * 2 ** (number - 2))
        failure = _try(request, tries.answer, most, opener)
        if isinstance(failure, bytes):
            return failure
        status, told, cause = failure
        helps = status is None or status >= _SERVER_ERROR or status in AGAIN
        if not helps or number == tries.count:
            raise RequestFailedError(status, told, cause, number) from cause
    raise ValueError("a request is tried once at least")


def _try(
    request: "Request", seconds: float, most: int, opener: "OpenerDirector | None"
) -> bytes | tuple[int | None, bytes, Exception | None]:
    """Make a request once: the body, or (status, what was told, cause)."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    make = opener.open if opener is not None else urlopen
    try:
        with make(request, timeout=seconds) as answer:
            body = bytes(answer.read(most))
            if len(body) < most and getattr(answer, "length", None):  # which read(n) says nowhere
                return None, b"", ConnectionError("the answer broke off")
            return body
    except HTTPError as error:
        with contextlib.closing(error):
            told = b""
            with contextlib.suppress(OSError, http.client.HTTPException):
                told = bytes(error.read(_TOLD))
            return error.code, told, None
    except (OSError, http.client.HTTPException) as error:  # urllib's URLError is an OSError
        return None, b"", error
