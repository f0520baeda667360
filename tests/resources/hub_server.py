"""The few answers of the Hugging Face Hub that downloading one model takes, from a local folder."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def running_hub(folder: Path, name: str, lists: bool = True) -> Iterator[str]:
    """Serve `folder` as the model `name`, at one commit; yields the endpoint.

    Without `lists` it fails when it is asked for the tree of files.
    """
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            path = self.path.split("?")[0]
            data, headers = None, {}
            if path.startswith(f"/api/models/{name}/tree/") and not lists:
                self.send_response(400)  # its client does not ask again then
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path.startswith(f"/api/models/{name}/tree/"):
                data = json.dumps([_tree_entry(file, at) for file, at in files.items()]).encode()
            elif path.startswith(f"/api/models/{name}"):
                siblings = [{"rfilename": file} for file in files]
                model = {"_id": "1", "id": name, "sha": COMMIT, "siblings": siblings}
                data = json.dumps(model).encode()
            elif path.startswith(f"/{name}/resolve/{COMMIT}/"):
                file = path.removeprefix(f"/{name}/resolve/{COMMIT}/")
                data = files[file].read_bytes() if file in files else None
                if data is not None:
                    headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT}
            self.send_response(200 if data is not None else 404)
            if data is None:
                data, headers = b"", {"X-Error-Code": "RepoNotFound"}
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _tree_entry(file: str, path: Path) -> dict[str, object]:
    data = path.read_bytes()
    return {"type": "file", "path": file, "size": len(data), "oid": _oid(data)}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
