"""A hub that takes commits: what huggingface_hub's `create_repo` and `create_commit` ask of it.

Weights go by the LFS protocol (batch, then one PUT each), small files within the commit.
"""

import base64
import contextlib
import hashlib
import http.server
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from tests.resources.hub_server import send, serving

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"


@dataclass
class UploadHub:
    """A running hub; `repositories` are files by path, `ignored` those that it drops silently."""

    endpoint: str = ""
    refuse: int | None = None
    ignored: tuple[str, ...] = ()
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def commit(self, name: str, lines: list[dict]) -> None:
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.messages.append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]


@contextlib.contextmanager
def running_upload_hub(
    refuse: int | None = None, ignored: tuple[str, ...] = ()
) -> Iterator[UploadHub]:
    """Serve an empty hub; with `refuse`, each request that writes is answered with that status."""
    hub = UploadHub(refuse=refuse, ignored=ignored)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self._path()
            tree = re.fullmatch(r"/api/models/(.+)/tree/(.+)", path)
            if tree is None:
                name = path.removeprefix("/api/models/").split("/revision/")[0]
                told = {"id": name, "_id": "1", "private": hub.private.get(name, False)}
                self._send(200 if name in hub.repositories else 404, told)
                return
            files = hub.repositories.get(tree[1] if tree else "", {})
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                for name, data in files.items()
            ]
            self._send(200, rows)

        def do_PUT(self) -> None:
            data, oid = self._body(), self._path().rsplit("/", 1)[-1]
            good = hashlib.sha256(data).hexdigest() == oid
            if good:
                hub.objects[oid] = data
            self._send(200 if good else 400, {})

        def do_POST(self) -> None:
            path, body = self._path(), self._body()
            if hub.refuse is not None:
                self._send(hub.refuse, {"error": "no"})
            elif path == "/api/repos/create":
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                hub.private.setdefault(name, asked.get("visibility") == "private")
                status = 409 if name in hub.repositories else 200
                hub.repositories.setdefault(name, {})
                self._send(status, {"url": f"{hub.endpoint}/{name}", "id": name})
            elif path == "/api/validate-yaml":
                self._send(200, {"errors": [], "warnings": []})
            elif made := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
                files = [
                    {
                        "path": each["path"],
                        "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                        "shouldIgnore": each["path"] in hub.ignored,
                    }
                    for each in json.loads(body)["files"]
                ]
                self._send(200 if made[1] in hub.repositories else 404, {"files": files})
            elif path.endswith(".git/info/lfs/objects/batch"):
                objects = [
                    {
                        **each,
                        "actions": {"upload": {"href": f"{hub.endpoint}/objects/{each['oid']}"}},
                    }
                    for each in json.loads(body)["objects"]
                ]
                self._send(200, {"transfer": "basic", "objects": objects})
            elif made := re.fullmatch(r"/api/models/(.+)/commit/main", path):
                hub.commit(made[1], [json.loads(line) for line in body.splitlines() if line])
                url = f"{hub.endpoint}/{made[1]}/commit/{COMMIT}"
                self._send(200, {"success": True, "commitOid": COMMIT, "commitUrl": url})
            else:
                self._send(404, {"error": path})

        def _path(self) -> str:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path))
            return path

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))

        def _send(self, status: int, document: object) -> None:
            data = json.dumps(document).encode()
            send(self, status, data, {"Content-Type": "application/json"}, True)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as endpoint:
        hub.endpoint = endpoint
        yield hub
