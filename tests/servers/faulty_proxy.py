"""An HTTP proxy in front of an S3 server that breaks a share of what passes, on purpose.

Clients use the proxy's address as their endpoint. Requests go on unchanged, their Host header too,
so the signatures hold. A request meets at most one fault, drawn from a seeded generator:

    error      503, before the server has seen the request or after it did what was asked
    reset      the connection is reset, before or after as well
    timeout    no answer at all, before or after
    truncated  the answer breaks off half-way
    slow       the answer comes in drops
    wrong      one bit of an object's bytes is turned over, on the way up or down

Listings and XML documents keep their bytes: S3 has no checksum for those.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.servers.waiting import HANG_SECONDS

KINDS = ("error", "reset", "timeout", "truncated", "slow", "wrong")
_DROPS = 30
_HOP = {"connection", "expect", "transfer-encoding", "content-length", "server", "date"}
_ERROR = b"<Error><Code>SlowDown</Code><Message>a fault on purpose</Message></Error>"

Answer = tuple[int, list[tuple[str, str]], bytes]


class FaultyProxy:
    """A running proxy. `seen` counts faults by (kind, "read" or "write"), `requests` all requests.

    Args:
        upstream: the server's endpoint, http only.
        share: probability of each kind, for each request.
        seed: of the generator.
        patience: seconds after which a request without an answer is closed, and a drop's pause.
    """

    def __init__(
        self, upstream: str, share: float, seed: int, patience: tuple[float, float]
    ) -> None:
        self.upstream = urlsplit(upstream)
        self.share = share
        self.silence, self.drop = patience
        self.seen: Counter[tuple[str, str]] = Counter()
        self.requests = 0
        self.always = ""  # a kind that every request meets
        self._refused = 0  # so many of the next requests meet an error
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.stopped = threading.Event()
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def choose(self, method: str, has_bytes: bool) -> tuple[str, bool]:
        """The fault of one request ("" for none), and whether it comes before the server acts."""
        with self._lock:
            self.requests += 1
            drawn = self._chance.random()
            before = self._chance.random() < 0.5
            kind = KINDS[int(drawn / self.share)] if drawn < self.share * len(KINDS) else ""
            kind = self.always or kind
            if self._refused:
                kind, self._refused = "error", self._refused - 1
            if kind == "wrong" and not has_bytes:
                kind = ""
            if kind:
                self.seen[kind, "read" if method in ("GET", "HEAD") else "write"] += 1
            return kind, before

    def refuse(self, requests: int) -> None:
        """Let so many of the next requests meet an error."""
        with self._lock:
            self._refused = requests

    def where(self, size: int) -> int:
        """A random place in `size` bytes."""
        with self._lock:
            return self._chance.randrange(size)

    def serve(self) -> None:
        """Answer requests until `stop`."""
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """End `serve`, and every request that waits."""
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    proxy: FaultyProxy

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave when they have waited enough."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        """Open one connection to the server for this client's connection."""
        super().setup()
        proxy = self.server.proxy
        self._upstream = http.client.HTTPConnection(
            proxy.upstream.hostname or "", proxy.upstream.port, timeout=HANG_SECONDS
        )

    def finish(self) -> None:
        """Close both."""
        self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def pass_on(self) -> None:
        """One request, and what becomes of it."""
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        up = self.command == "PUT" and len(body) > 0
        down = self.command == "GET" and "list-type" not in self.path and "?" not in self.path
        kind, before = proxy.choose(self.command, up or down)
        if kind == "wrong" and up:
            body = _turned(body, proxy.where(len(body)))
        if before and kind in ("error", "reset", "timeout"):
            self._break(kind)
            return
        answer = self._ask(body)
        if kind in ("error", "reset", "timeout"):
            self._break(kind)
            return
        status, headers, data = answer
        if kind == "wrong" and down and data and status < 300:
            data = _turned(data, proxy.where(len(data)))
        whole = _head(status, headers, len(data), self.command) + data
        if kind == "truncated":
            self.wfile.write(whole[: max(len(whole) - len(data), 30) + len(data) // 2 - 1])
            self._hang_up(reset=False)
        elif kind == "slow":
            self._trickle(whole)
        else:
            self.wfile.write(whole)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

    def _ask(self, body: bytes) -> Answer:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        self._upstream.request(self.command, self.path, body or None, headers)
        answer = self._upstream.getresponse()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        if self.command == "HEAD":
            kept.append(("Content-Length", answer.getheader("Content-Length", "0")))
        return answer.status, kept, answer.read()

    def _break(self, kind: str) -> None:
        if kind == "error":
            headers = [("Content-Type", "application/xml")]
            self.wfile.write(_head(503, headers, len(_ERROR), self.command))
            if self.command != "HEAD":
                self.wfile.write(_ERROR)
            return
        if kind == "timeout":
            self.server.proxy.stopped.wait(self.server.proxy.silence)
        self._hang_up(reset=kind == "reset")

    def _trickle(self, whole: bytes) -> None:
        step = -(-len(whole) // _DROPS)
        for at in range(0, len(whole), step):
            self.wfile.write(whole[at : at + step])
            self.wfile.flush()
            if self.server.proxy.stopped.wait(self.server.proxy.drop):
                break

    def _hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()


def _turned(data: bytes, at: int) -> bytes:
    turned = bytearray(data)
    turned[at] ^= 1
    return bytes(turned)


def _head(status: int, headers: list[tuple[str, str]], length: int, method: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {http.client.responses.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if method != "HEAD" and status != 204:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@contextlib.contextmanager
def running_proxy(
    upstream: str, share: float, seed: int = 0, patience: tuple[float, float] = (3.0, 0.1)
) -> Iterator[FaultyProxy]:
    """A proxy in a thread; stopped on the way out."""
    proxy = FaultyProxy(upstream, share, seed, patience)
    thread = threading.Thread(target=proxy.serve, name="faulty-proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()
