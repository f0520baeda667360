"""The few answers of the Hugging Face Hub that finding, reading and downloading models take.

Also as a proxy: a request for another host is answered as if it were for this one.
"""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Model = Path | Mapping[str, Path]
"""A model's folder, or one for each of its branches."""


@dataclass
class Hub:
    """A running hub; `requests` are those that came: method, path and range."""

    endpoint: str
    commits: dict[str, dict[str, str]]
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    held_at: int | None = None
    """Bytes of a file of weights that are sent before its first whole answer stands still."""
    go_on: threading.Event = field(default_factory=threading.Event)

    def downloads(self) -> list[str]:
        """The files that were asked for whole."""
        paths = [path for method, path, part in self.requests if method == "GET" and not part]
        return sorted(path.rpartition("/")[2] for path in paths if "/resolve/" in path)


@contextlib.contextmanager
def running_hub(folder: Path, name: str, lists: bool = True) -> Iterator[str]:
    """Serve `folder` as the model `name`, at one commit; yields the endpoint.

    Without `lists` it fails when it is asked for the tree of files.
    """
    with running_hub_of({name: folder}, lists) as hub:
        yield hub.endpoint


@contextlib.contextmanager
def running_hub_of(
    models: Mapping[str, Model],
    lists: bool = True,
    ranges: bool = True,
    sizes: bool = True,
    gated: Collection[str] = (),
    spoilt: Collection[str] = (),
) -> Iterator[Hub]:
    """Serve models by name, each branch at a commit of its own (`main` of a folder at COMMIT).

    Without `ranges` every answer is a whole file, without `sizes` none is told. Files that are
    `spoilt` arrive with other bytes than their checksums are of, until they are taken out of it.
    """
    branches = {
        name: {"main": model} if isinstance(model, Path) else dict(model)
        for name, model in models.items()
    }
    commits = {
        name: {
            branch: COMMIT if isinstance(models[name], Path) else _commit(name, branch)
            for branch in folders
        }
        for name, folders in branches.items()
    }
    hub = Hub("", commits)

    def found(name: str, revision: str) -> tuple[str, Path] | None:
        for branch, folder in branches[name].items():
            commit = commits[name].get(branch)  # a test may take a branch away
            if commit is not None and revision in (branch, commit):
                return commit, folder
        return None

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            parts = urlsplit(self.path)
            path, part = unquote(parts.path), self.headers.get("Range", "")
            hub.requests.append((self.command, path, part))
            asked = re.fullmatch(
                r"/(?:api/models/(?P<api>[\w.-]+(?:/[\w.-]+)?)(?:/(?P<what>tree|revision)/(?P<at>[^/]+)|/(?P<refs>refs))?"
                r"|(?P<name>[\w.-]+(?:/[\w.-]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+))",
                path,
            )
            name = asked and (asked["api"] or asked["name"])
            if asked is None or name not in branches:
                self._send(401, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
                return
            if name in gated:
                self._send(403, b"", {"X-Error-Code": "GatedRepo"}, with_body)
                return
            if asked["refs"]:
                refs = [
                    {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
                    for branch, commit in commits[name].items()
                ]
                told = {"branches": refs, "converts": [], "tags": []}
                self._send(200, _json(told), {}, with_body)
                return
            version = found(name, asked["at"] or asked["revision"] or "main")
            if version is None:
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
                return
            commit, folder = version
            files = {
                each.relative_to(folder).as_posix(): each
                for each in sorted(folder.rglob("*"))
                if each.is_file()
            }
            if asked["what"] == "tree":
                rows = [_tree_entry(file, at) for file, at in files.items()]
                # its client does not ask again after 400
                self._send(200 if lists else 400, _json(rows) if lists else b"", {}, with_body)
            elif asked["api"]:
                told = sizes and "blobs" in parts.query
                siblings = [
                    {"rfilename": file} | (_blob(file, at, spoilt) if told else {})
                    for file, at in files.items()
                ]
                document = {"_id": "1", "id": name, "sha": commit, "siblings": siblings}
                self._send(200, _json(document), {}, with_body)
            elif asked["file"] not in files:
                self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
            else:
                data = files[asked["file"]].read_bytes()
                headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit}
                stands = hub.held_at if asked["file"].endswith(".safetensors") else None
                if stands is not None and self.command == "GET" and not part:
                    self._stand_still(data, headers, stands)
                    return
                send_ranged(self, data, part if ranges else "", headers, with_body)

        def _stand_still(self, data: bytes, headers: Mapping[str, str], at: int) -> None:
            send(self, 200, data, headers, with_body=False)
            with contextlib.suppress(OSError):  # whoever asked is gone by then
                self.wfile.write(data[:at])
                self.wfile.flush()
                hub.go_on.wait()
                self.wfile.write(data[at:])

        def _send(
            self, status: int, data: bytes, headers: Mapping[str, str], with_body: bool
        ) -> None:
            send(self, status, data, headers, with_body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as endpoint:
        hub.endpoint = endpoint
        yield hub


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a server on a free port; yields its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def send_ranged(
    handler: http.server.BaseHTTPRequestHandler,
    data: bytes,
    part: str,
    headers: Mapping[str, str],
    with_body: bool = True,
) -> None:
    """Answer with a file, or with the part of it that a `Range` asks for."""
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", part)
    if asked is None:
        send(handler, 200, data, headers, with_body)
        return
    start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    more = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
    send(handler, 206, data[start : end + 1], {**headers, **more}, with_body)


def send(
    handler: http.server.BaseHTTPRequestHandler,
    status: int,
    data: bytes,
    headers: Mapping[str, str],
    with_body: bool = True,
) -> None:
    """Send one whole answer."""
    handler.send_response(status)
    for key, value in {**headers, "Content-Length": str(len(data))}.items():
        handler.send_header(key, value)
    handler.end_headers()
    if with_body:
        handler.wfile.write(data)


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _commit(name: str, branch: str) -> str:
    return _oid(f"{name}@{branch}".encode())


def _blob(file: str, path: Path, spoilt: Collection[str]) -> dict[str, object]:
    """What is told of a file beside its name: its size, and the SHA-256 of a large one."""
    data = path.read_bytes()
    told: dict[str, object] = {"size": len(data)}
    if file.endswith((".safetensors", ".bin")):
        right = hashlib.sha256(data + b"other" if file in spoilt else data).hexdigest()
        told["lfs"] = {"sha256": right, "size": len(data), "pointerSize": 134}
    return told


def _tree_entry(file: str, path: Path) -> dict[str, object]:
    data = path.read_bytes()
    return {"type": "file", "path": file, "size": len(data), "oid": _oid(data)}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
