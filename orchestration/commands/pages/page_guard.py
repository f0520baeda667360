"""The guard before Dagster's page: no other web page may read it or give it commands.

A browser sends requests to this machine for any page that is open in it. Dagster's server answers
them all: a GET with a mutation deletes a run, a name that leads to 127.0.0.1 (DNS rebinding) may
read everything. The guard lets through what this page, a link to it, or a program sends.
"""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")
GRAPHQL = "/graphql"
_JSON = "application/json"


class PageGuard:
    """The page guard is an ASGI application around another; refusals are answered with 403.

    `hosts` are the names under which people reach the page, beside those of this machine.
    """

    def __init__(self, app: Any, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = {each.lower() for each in (*LOOPBACK, *hosts)}

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request or connection."""
        if scope["type"] in ("http", "websocket"):
            why = refusal(scope, self._hosts)
            if why is not None:
                await _refuse(scope, send, f"Ronghe refuses this request: {why}\n")
                return
        await self._app(scope, receive, send)


def refusal(scope: Mapping[str, Any], hosts: Collection[str]) -> str | None:
    """Say why a request is none of this page's, of a link to it, or of a program; else None.

    `scope` is ASGI's, `hosts` are the names of this page in small letters.
    """
    headers = _headers(scope)
    named = headers.get("host", [])
    if len(named) != 1 or _host(f"//{named[0]}") not in hosts:
        given = ", ".join(map(repr, named)) or "missing"
        return f"its Host is {given}, no name of this page; `ronghe ui --host-name NAME` adds one"
    for origin in headers.get("origin", []):
        if _origin(origin) != _origin(f"http://{named[0]}") and origin != f"https://{named[0]}":
            return f"it comes from another page, {origin!r}"
    if scope["type"] == "websocket":
        return None
    is_graphql = scope["path"].rstrip("/").endswith(GRAPHQL)
    site = headers.get("sec-fetch-site", ["none"])[0]
    if site not in ("same-origin", "none"):
        mode = headers.get("sec-fetch-mode", [""])[0]
        if is_graphql or scope["method"] not in ("GET", "HEAD") or mode != "navigate":
            return f"it comes from another page ({site})"
    if is_graphql and scope["method"] != "POST" and b"query" in scope.get("query_string", b""):
        return "a query by GET; send it by POST, as JSON"
    if is_graphql and scope["method"] == "POST":
        kind = headers.get("content-type", [""])[0].split(";")[0].strip().lower()
        if kind != _JSON:
            return f"its Content-Type is {kind!r}; send {_JSON}"
    return None


def _headers(scope: Mapping[str, Any]) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _host(url: str) -> str | None:
    """The host of a URL in small letters, without the port; None where it is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _origin(url: str) -> tuple[str | None, int | None] | None:
    """Host and port of an origin by http; None for any other."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port or 80) if parts.scheme == "http" else None
    except ValueError:
        return None


async def _refuse(scope: Mapping[str, Any], send: Any, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        return
    kind = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": kind})
    await send({"type": "http.response.body", "body": text.encode()})
