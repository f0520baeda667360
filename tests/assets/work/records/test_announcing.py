"""The webhook against a local HTTP server: signed, tried again, never a fault of a promotion."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from assets.evidence.champions import build_champion
from assets.work.ranking.ranking import rank
from assets.work.records.announcing import DELIVERY, EVENT, SIGNATURE, TRIES, Webhook
from merge_ops.errors import SettingsError
from orchestration import announcements
from orchestration.settings import webhook_address
from resources import web_requests
from tests.assets.work.made_up_store import ScoredStore

SECRET = "a secret of both sides"
TOKEN = "token-in-the-path"


class Receiver(ThreadingHTTPServer):
    """Takes events; answers with the statuses it was given, and 200 when these are used up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[int] = []
        self.posts: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/{TOKEN}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append((dict(self.headers), body))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.send_response(status)
        if status == 307:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def hook(receiver: Receiver) -> Webhook:
    return Webhook(receiver.url, SECRET.encode(), pause=0)


EVENT_SENT = {"event": "promotion", "recipe": "ties", "because": "中药"}


def test_an_event_is_one_signed_post_of_json(receiver: Receiver) -> None:
    assert hook(receiver).send(EVENT_SENT) is None
    ((headers, body),) = receiver.posts
    assert json.loads(body) == EVENT_SENT
    assert (
        headers[SIGNATURE]
        == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    )
    assert headers[EVENT] == "promotion"
    assert len(headers[DELIVERY]) == 32
    assert headers["Content-Type"].startswith("application/json")


def test_it_is_tried_again_where_that_may_help(receiver: Receiver) -> None:
    receiver.answers = [503, 429]
    assert hook(receiver).send(EVENT_SENT) is None
    assert len(receiver.posts) == 3
    assert len({headers[DELIVERY] for headers, _ in receiver.posts}) == 1
    assert len({body for _, body in receiver.posts}) == 1


def test_what_is_refused_is_a_warning_without_a_secret(receiver: Receiver) -> None:
    for status, tries in ((400, 1), (307, 1), (500, TRIES)):
        receiver.posts.clear()
        receiver.answers = [status] * 9
        problem = hook(receiver).send(EVENT_SENT)
        assert problem is not None
        assert f"HTTP status {status}, {tries} tries" in problem
        assert len(receiver.posts) == tries
        assert f"127.0.0.1:{receiver.server_port}" in problem
        assert TOKEN not in problem
        assert SECRET not in problem
    assert TOKEN not in repr(hook(receiver))
    assert SECRET not in repr(hook(receiver))


def test_nobody_there_is_a_warning(receiver: Receiver) -> None:
    nobody = Webhook("http://127.0.0.1:9/x", SECRET.encode(), pause=0)
    problem = nobody.send(EVENT_SENT)
    assert problem is not None
    told = f"did not take the promotion of ties (ConnectionRefusedError, {TRIES}"
    assert f"http://127.0.0.1:9 {told}" in problem


def test_pauses_grow(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(web_requests.time, "sleep", slept.append)
    receiver.answers = [500] * TRIES
    Webhook(receiver.url, SECRET.encode(), pause=0.5).send(EVENT_SENT)
    assert slept == [0.5, 1.0, 2.0]


def test_the_environment_names_address_and_secret(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert webhook_address({}) is None
    given = {"RONGHE_WEBHOOK": receiver.url, "RONGHE_WEBHOOK_SECRET": SECRET}
    assert webhook_address(given) == (receiver.url, SECRET.encode())
    for wrong, message in (
        ({"RONGHE_WEBHOOK_SECRET": ""}, "RONGHE_WEBHOOK_SECRET is not set; each POST"),
        ({"RONGHE_WEBHOOK_SECRET": "short"}, "has fewer than 16 characters"),
        ({"RONGHE_WEBHOOK": "https://me:hidden@host/x"}, "without a user and a password in it"),
        ({"RONGHE_WEBHOOK": "ftp://host/x"}, "is no http:// or https:// address"),
    ):
        with pytest.raises(SettingsError, match=message) as caught:
            webhook_address({**given, **wrong})
        assert "hidden" not in str(caught.value)
        assert "short" not in str(caught.value).replace("shorter", "")
    assert announcements.announce(EVENT_SENT) is None
    assert receiver.posts == []
    monkeypatch.setenv("RONGHE_WEBHOOK", receiver.url)
    problem = announcements.announce(EVENT_SENT)
    assert problem is not None
    assert "no webhook was told of the promotion" in problem
    monkeypatch.setenv("RONGHE_WEBHOOK_SECRET", SECRET)
    assert announcements.announce(EVENT_SENT) is None
    assert len(receiver.posts) == 1


def test_the_champion_asset_tells_of_promotions_and_refusals(
    receiver: Receiver, tmp_path: Path
) -> None:
    import dagster as dg

    from assets.frame.run_settings import RunSettings

    made = ScoredStore(tmp_path)
    made.everything({"x=0": 0.9})
    rank(made.store, made.contest)
    settings = RunSettings(
        store_uri=made.store.uri, catalog_folder="", catalog="team", device="cpu"
    )
    told: list[str | None] = []

    def announce(event: Any) -> str | None:
        told.append(hook(receiver).send(event))
        return told[-1]

    asset = build_champion(made.contest, made.recipe, "1", dg.AutomationCondition.eager(), announce)

    def materialize() -> dict[str, Any]:
        result = dg.materialize([asset], resources={"settings": settings})
        assert result.success
        (event,) = result.asset_materializations_for_node("ties__champion")
        return {name: value.value for name, value in event.metadata.items()}

    receiver.answers = [500] * TRIES
    metadata = materialize()
    assert told[0] is not None  # a warning, and the champion is one all the same
    assert metadata["promoted"] is True
    assert metadata["stale"] == "no"
    assert metadata["history"].records[0].data["how"] == "gate"
    receiver.posts.clear()

    made.candidate("x=1|e1+e2", 0.92)
    rank(made.store, made.contest)
    assert materialize()["promoted"] is False
    ((_, body),) = receiver.posts
    event = json.loads(body)
    assert (event["event"], event["recipe"], event["catalog"]) == ("refusal", "ties", "team")
    assert event["champion"] == event["before"]
    assert event["candidate"]["coefficient"] == "x=1"
    assert "is not significantly above that of the incumbent" in event["reasons"][0]
    materialize()
    assert len(receiver.posts) == 2
