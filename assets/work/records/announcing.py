"""Telling another program what becomes of champions: one signed POST of JSON each.

The body is signed with a secret that both sides have: `X-Ronghe-Signature-256: sha256=<hex>` is the
HMAC-SHA256 of the body's bytes. Whoever does not answer costs a warning, never a promotion.
Messages name the host alone, since paths of such addresses often hold a token.
"""

import hashlib
import hmac
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from resources.errors import RequestFailedError
from resources.web_requests import Tries, answer_to

FORMAT = 1
SIGNATURE, EVENT, DELIVERY = "X-Ronghe-Signature-256", "X-Ronghe-Event", "X-Ronghe-Delivery"
ANSWER = 10.0
"""Seconds for one answer."""
TRIES, PAUSE = 4, 0.5
"""Tries in all, and the seconds before the second one; each further pause is twice as long."""

Kind = Literal["promotion", "rollback", "refusal", "demotion"]
Announce = Callable[[Mapping[str, Any]], str | None]
"""Sends an event; returns a warning where nobody took it."""


@dataclass(frozen=True)
class Webhook:
    """An address that takes events, and the secret that they are signed with."""

    url: str = field(repr=False)
    secret: bytes = field(repr=False)
    pause: float = PAUSE

    @property
    def host(self) -> str:
        """What messages call it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"

    def send(self, event: Mapping[str, Any]) -> str | None:
        """Send an event, again where that may help; return a warning where it was not taken."""
        body = json.dumps(event, ensure_ascii=False, allow_nan=False).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "ronghe",
            EVENT: str(event.get("event")),
            DELIVERY: uuid.uuid4().hex,
            SIGNATURE: f"sha256={sign(body, self.secret)}",
        }
        try:
            request = urllib.request.Request(self.url, body, headers, method="POST")
            opener = urllib.request.build_opener(_NoDetours)
            answer_to(request, Tries(TRIES, self.pause, ANSWER), 0, opener)
        except (RequestFailedError, ValueError) as error:  # no text of urllib's, which may repeat
            return self._warning(event, error)  # the address
        return None

    def _warning(self, event: Mapping[str, Any], error: RequestFailedError | ValueError) -> str:
        problem, tries = type(error).__name__, 1
        if isinstance(error, RequestFailedError):
            status, tries = error.status, error.tries
            cause = getattr(error.cause, "reason", error.cause)  # urllib wraps what it met
            name = type(cause if isinstance(cause, Exception) else error.cause).__name__
            problem = name if status is None else f"HTTP status {status}"
        return (
            f"the webhook at {self.host} did not take the {event.get('event')} of"
            f" {event.get('recipe')} ({problem}, {tries} tries); it is on record in the store"
        )


class _NoDetours(urllib.request.HTTPRedirectHandler):
    """A signed body goes to the address that was given, and to no other."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> NoReturn:
        raise urllib.error.HTTPError(req.full_url, code, "a redirect", headers, fp)


def sign(body: bytes, secret: bytes) -> str:
    """Return the HMAC-SHA256 of a body in hex, which the receiver computes too and compares."""
    return hmac.new(secret, body, hashlib.sha256).hexdigest()


def event_of(
    kind: Kind,
    recipe: str,
    suite: str,
    catalog: str | None,
    *,
    candidate: Mapping[str, Any] | None,
    champion: str | None,
    before: str | None,
    reasons: tuple[str, ...],
    because: str | None = None,
    by: str | None = None,
) -> dict[str, Any]:
    """Make an event. `champion` and `before` are the digests after it and before it."""
    return {
        "format": FORMAT,
        "event": kind,
        "catalog": catalog,
        "recipe": recipe,
        "suite": suite,
        "candidate": dict(candidate) if candidate else None,
        "champion": champion,
        "before": before,
        "reasons": list(reasons),
        "because": because,
        "by": by,
    }
