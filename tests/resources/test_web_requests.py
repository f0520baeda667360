"""One request over HTTP: what is tried again, how long it is waited, and what failing says."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request

import pytest

from resources import web_requests
from resources.errors import RequestFailedError
from resources.web_requests import Tries, answer_to

HURRIED = Tries(3, 0.0, 5.0)


class Prepared(ThreadingHTTPServer):
    """Answers with prepared (status, body, bytes that are missing) one after the other."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, bytes, int]] = []

    @property
    def request(self) -> Request:
        return Request(f"http://127.0.0.1:{self.server_port}/secret-path")


class _Handler(BaseHTTPRequestHandler):
    server: Prepared  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        status, body, missing = self.server.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + missing))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prepared]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Prepared() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again(server: Prepared) -> None:
    server.answers = [(503, b"", 0), (429, b"", 0), (200, b"here", 0), (200, b"later", 0)]
    assert answer_to(server.request, HURRIED, 100) == b"here"
    assert answer_to(server.request, HURRIED, 3) == b"lat"


def test_an_answer_that_breaks_off_is_none(server: Prepared) -> None:
    """urllib reads a given number of bytes and says nothing where fewer come."""
    server.answers = [(200, b"hal", 1), (200, b"half", 0), *[(200, b"hal", 1)] * 3]
    assert answer_to(server.request, HURRIED, 100) == b"half"
    with pytest.raises(RequestFailedError, match=r"^ConnectionError$") as caught:
        answer_to(server.request, HURRIED, 100)
    assert (caught.value.why, caught.value.tries) == ("the answer broke off", 3)


def test_a_refusal_is_final_and_tells_no_address(server: Prepared) -> None:
    server.answers = [(403, b"no key", 0)]
    with pytest.raises(RequestFailedError, match=r"^HTTP 403$") as caught:
        answer_to(server.request, HURRIED, 100)
    error = caught.value
    assert (error.status, error.told, error.tries, error.why) == (403, b"no key", 1, "HTTP 403")
    assert server.answers == []


def test_nobody_there_is_told_at_the_last_try(
    server: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(web_requests.time, "sleep", slept.append)
    with pytest.raises(RequestFailedError, match=r"^URLError$") as caught:
        answer_to(Request("http://127.0.0.1:9/secret-path"), Tries(4, 0.5, 5.0), 100)
    assert (caught.value.status, caught.value.tries) == (None, 4)
    assert "refused" in caught.value.why
    assert slept == [0.5, 1.0, 2.0]
    with pytest.raises(ValueError, match="tried once at least"):
        answer_to(server.request, Tries(0, 0.0, 1.0), 1)
