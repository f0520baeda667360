"""A judge's endpoint, asked over HTTP: what is sent, what is made of answers and faults."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from resources.benchmarks import ask_endpoint
from resources.errors import EndpointError

CHAT = [{"role": "user", "content": "怎样？"}]


class Endpoint:
    """An OpenAI-compatible server that gives prepared answers, one after the other."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, object]] = []
        self.seen: list[tuple[str, str | None, Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.seen.append((self.path, self.headers.get("Authorization"), body))
                status, answer = endpoint.answers.pop(0)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr("resources.benchmarks.chat_endpoint._PAUSE", 0.0)
    made = Endpoint()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def said(text: object) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


def test_messages_go_out_and_words_come_back(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.answers = [(200, said("好 [[9]]")), (200, said("[[1]]"))]
    assert ask_endpoint(endpoint.address, "m", CHAT, 0.0, 64) == "好 [[9]]"
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    ask_endpoint(f"{endpoint.address}/", "m", CHAT, 0.5, 64)
    path, key, body = endpoint.seen[0]
    assert (path, key) == ("/v1/chat/completions", None)
    wanted = {"model": "m", "messages": CHAT, "temperature": 0.0, "max_tokens": 64, "seed": 0}
    assert body == wanted
    assert endpoint.seen[1][:2] == ("/v1/chat/completions", "Bearer a-key")


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.answers = [(429, {}), (503, {}), (200, said("[[2]]"))]
    assert ask_endpoint(endpoint.address, "m", CHAT, 0.0, 64) == "[[2]]"
    assert len(endpoint.seen) == 3


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ([(401, {"error": "no key"})], r"chat/completions: HTTP 401: .*no key"),
        ([(500, {})] * 5, r"HTTP 500"),
        ([(200, {"choices": []})], r"answers with what is no chat completion \(IndexError\)"),
        ([(200, said(None))], r"answers without text"),
    ],
)
def test_faults_of_an_endpoint_are_told(
    endpoint: Endpoint, answers: list[tuple[int, object]], fault: str
) -> None:
    endpoint.answers = list(answers)
    with pytest.raises(EndpointError, match=fault):
        ask_endpoint(endpoint.address, "m", CHAT, 0.0, 64)
    assert endpoint.answers == []


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint) -> None:
    endpoint.server.server_close()
    with pytest.raises(EndpointError, match=r"does not answer"):
        ask_endpoint("http://127.0.0.1:9/v1", "m", CHAT, 0.0, 64)
