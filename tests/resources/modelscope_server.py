"""The two answers of ModelScope that downloading a model takes: a list of files, and a file."""

import contextlib
import hashlib
import http.server
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.resources.hub_server import send, send_ranged, serving

HEAD = "83ee97c66e841048bedc5c02c15ce2f3ed259feb"
OLDER = "f194f50981eaaa6019bbec5049a4c7e1fd294110"


@dataclass
class Scope:
    """A running server. Set `cut` to break off answers after so many bytes, `wrong` to spoil them.

    `requests` are those that came: the path, and the headers.
    """

    endpoint: str = ""
    cut: int | None = None
    wrong: bool = False
    commit_told: bool = True
    ranges: bool = True
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    elsewhere: list[dict[str, str]] = field(default_factory=list)
    """The headers of requests that were sent on, as downloads are to another host."""


@contextlib.contextmanager
def running_modelscope(models: Mapping[str, Path]) -> Iterator[Scope]:
    """Serve models by name at branch `master`, with `v1` as its older commit's tag."""
    scope = Scope()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            if parts.path.startswith("/cdn/"):
                scope.elsewhere.append(dict(self.headers))
                self._file(Path("/" + query["at"]))
                return
            scope.requests.append((self.path, dict(self.headers)))
            name = "/".join(parts.path.split("/")[4:6])
            if name not in models:
                send(self, 404, b'{"Code": 10010205001, "Success": false}', {})
            elif parts.path.endswith("/repo/files"):
                known = query["Revision"] in ("master", "v1", HEAD, OLDER)
                self._list(models[name] if known else None)
            else:
                at = (models[name] / query["FilePath"]).as_posix().lstrip("/")
                if query["FilePath"].endswith(".safetensors"):
                    send(self, 302, b"", {"Location": f"{scope.endpoint}/cdn/?at={at}"})
                else:
                    self._file(Path("/" + at))

        def _list(self, folder: Path | None) -> None:
            rows = [
                {
                    "Path": path.relative_to(folder).as_posix(),
                    "Name": path.name,
                    "Type": "blob" if path.is_file() else "tree",
                    "Size": path.stat().st_size if path.is_file() else 0,
                    "Sha256": _sha256(path) if path.is_file() else "",
                    "Revision": HEAD if path.name == "config.json" else OLDER,
                }
                for path in (sorted(folder.rglob("*")) if folder else [])
            ]
            latest = {"Id": "", "ShortId": HEAD[:8]} if scope.commit_told else {"Id": ""}
            data = {"Files": rows if folder else None, "LatestCommitter": latest}
            document = {"Code": 200, "Success": True, "Data": data}
            send(self, 200, json.dumps(document).encode(), {})

        def _file(self, path: Path) -> None:
            data = path.read_bytes()
            if scope.wrong:
                data = bytes(byte ^ 1 for byte in data)
            part = self.headers.get("Range", "") if scope.ranges else ""
            if scope.cut is None:
                send_ranged(self, data, part, {})
                return
            start = int(part.removeprefix("bytes=").partition("-")[0] or 0)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + scope.cut])
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as endpoint:
        scope.endpoint = endpoint
        yield scope


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
