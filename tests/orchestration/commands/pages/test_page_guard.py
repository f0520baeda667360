"""What of Dagster's page is answered: its own requests, links to it, programs; nothing else."""

import asyncio

import pytest

from merge_ops.errors import SettingsError
from orchestration.commands.pages.page_guard import LOOPBACK, PageGuard, refusal
from orchestration.commands.pages.ui_command import run_ui

JSON = ("content-type", "application/json; charset=utf-8")
HOME = ("host", "127.0.0.1:3000")
ORIGIN = ("origin", "http://127.0.0.1:3000")
HOSTS = {*LOOPBACK, "merge.example"}


def scope(method="GET", path="/", query="", headers=(HOME,), kind="http"):
    pairs = [(name.encode(), value.encode()) for name, value in headers]
    return {
        "type": kind, "method": method, "path": path, "query_string": query.encode(),
        "headers": pairs,
    }  # fmt: skip


ALLOWED = {
    "a page": scope(),
    "a link from elsewhere": scope(
        path="/runs",
        headers=(HOME, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")),
    ),
    "its own query": scope(
        "POST", "/graphql", headers=(HOME, ORIGIN, JSON, ("sec-fetch-site", "same-origin"))
    ),
    "a program's query": scope("POST", "/graphql", headers=(HOME, JSON)),
    "the playground": scope(path="/graphql"),
    "localhost": scope(headers=(("host", "LOCALHOST:3000"),)),
    "IPv6": scope(headers=(("host", "[::1]:3000"),)),
    "behind a proxy": scope(
        "POST",
        "/graphql",
        headers=(("host", "merge.example"), ("origin", "https://merge.example"), JSON),
    ),
    "subscriptions": scope(kind="websocket", path="/graphql", headers=(HOME, ORIGIN)),
    "a program's report": scope("POST", "/report_asset_materialization/a", headers=(HOME, JSON)),
}
REFUSED = {
    "a mutation by GET": (scope(path="/graphql", query="query=mutation{x}"), "a query by GET"),
    "by HEAD": (scope("HEAD", "/graphql/", "query=mutation{x}"), "a query by GET"),
    "a form": (
        scope("POST", "/graphql", headers=(HOME, ("content-type", "text/plain"))),
        "its Content-Type is 'text/plain'",
    ),
    "no type": (scope("POST", "/graphql"), "its Content-Type is ''"),
    "another page": (
        scope("POST", "/graphql", headers=(HOME, JSON, ("origin", "http://evil.example"))),
        "it comes from another page, 'http://evil.example'",
    ),
    "a sandboxed frame": (
        scope("POST", "/graphql", headers=(HOME, JSON, ("origin", "null"))),
        "'null'",
    ),
    "another port": (
        scope("POST", "/graphql", headers=(HOME, JSON, ("origin", "http://127.0.0.1:8000"))),
        "another page",
    ),
    "another scheme": (
        scope("POST", "/x", headers=(HOME, JSON, ("origin", "ftp://127.0.0.1:3000"))),
        "another page",
    ),
    "a picture of another page": (
        scope(
            path="/logs/x",
            headers=(HOME, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")),
        ),
        "another page \\(cross-site\\)",
    ),
    "another site's navigation to GraphQL": (
        scope(
            path="/graphql",
            headers=(HOME, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate")),
        ),
        "another page \\(same-site\\)",
    ),
    "rebinding": (scope(headers=(("host", "evil.example:3000"),)), "Host is 'evil.example:3000'"),
    "a host inside": (scope(headers=(("host", "127.0.0.1.evil.example"),)), "no name of this page"),
    "user and host": (scope(headers=(("host", "127.0.0.1@evil.example"),)), "no name of this page"),
    "no host": (scope(headers=()), "Host is missing"),
    "two hosts": (scope(headers=(HOME, HOME)), "no name of this page"),
    "a broken host": (scope(headers=(("host", "[::1"),)), "no name of this page"),
    "a socket of another page": (
        scope(kind="websocket", path="/graphql", headers=(HOME, ("origin", "http://evil.example"))),
        "another page",
    ),
}


@pytest.mark.parametrize("each", ALLOWED.values(), ids=ALLOWED)
def test_what_is_let_through(each):
    assert refusal(each, HOSTS) is None


@pytest.mark.parametrize(("each", "why"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(each, why):
    import re

    assert re.search(why, refusal(each, HOSTS) or "")


@pytest.mark.parametrize(("kind", "answer"), [("http", 403), ("websocket", 1008)])
def test_a_refusal_reaches_nobody_behind(kind, answer):
    sent = []

    async def behind(*_):
        raise AssertionError

    async def send(message):
        sent.append(message)

    asyncio.run(PageGuard(behind)(scope(kind=kind, headers=(("host", "e"),)), None, send))
    assert answer in (sent[0].get("status"), sent[0].get("code"))


def test_other_machines_come_by_a_name():
    with pytest.raises(SettingsError, match=r"--host is 0\.0\.0\.0, which other machines reach"):
        run_ui("0.0.0.0", 3000, [], with_daemon=False)


def test_a_port_that_is_taken():
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"--port {port} on 127.0.0.1 cannot be listened"):
            run_ui("127.0.0.1", port, [], with_daemon=False)
