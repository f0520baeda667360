"""A real PostgreSQL server for tests: Debian's, with a data folder of its own."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.storage_servers import free_ports
from tests.servers.waiting import HANG_SECONDS

_INSTALLED = "/usr/lib/postgresql"
_SUPERUSER = "admin"


@dataclass(frozen=True)
class PostgresServer:
    """A running server. Over TCP it asks for passwords; its socket in `folder` trusts everybody."""

    programs: Path
    folder: Path
    port: int

    def administration(self) -> dict[str, str]:
        """The variables with which `psql` is the superuser."""
        return {"PGHOST": str(self.folder), "PGPORT": str(self.port), "PGUSER": _SUPERUSER}

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run one statement as the superuser; returns what psql prints."""
        command = [self.programs / "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"]
        answer = subprocess.run(
            [*command, "-d", database],
            input=statement,
            env={**os.environ, **self.administration()},
            capture_output=True,
            text=True,
            check=True,
        )
        return answer.stdout.strip()


def find_postgres() -> Path | None:
    """The folder of `initdb` and `postgres`: that on PATH, or Debian's newest; None without one."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    versions = Path(_INSTALLED).glob("*/bin")
    folders += sorted(versions, key=lambda each: float(each.parent.name), reverse=True)
    return next((each for each in folders if (each / "postgres").is_file()), None)


def postgres_programs() -> Path:
    """That folder; a test without it is skipped, or fails where RONGHE_REQUIRE_POSTGRES is set."""
    programs = find_postgres()
    if programs is None:
        if os.environ.get("RONGHE_REQUIRE_POSTGRES"):
            pytest.fail("no PostgreSQL here; install it (Debian: apt-get install postgresql)")
        pytest.skip("no PostgreSQL here; `apt-get install postgresql` lets this test run")
    return programs


@contextlib.contextmanager
def running_postgres(programs: Path) -> Iterator[PostgresServer]:
    """Start a fresh server; stop it and remove its data on the way out.

    PostgreSQL refuses to run as root, so root runs it as another user, who must reach the folder:
    it is not below pytest's, which is root's alone.
    """
    with tempfile.TemporaryDirectory(prefix="ronghe-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        as_user = _other_user(folder)
        _initialize(programs, folder, as_user)
        process, server = _start(programs, folder, as_user)
        try:
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # "fast": open sessions are ended
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _other_user(folder: Path) -> dict[str, Any]:
    """Arguments of Popen that make a process of root one of another user, who gets the folder."""
    if os.geteuid() != 0:
        return {}
    names = {each.pw_name: each for each in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _initialize(programs: Path, folder: Path, as_user: dict[str, Any]) -> None:
    options = ["--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    options += [f"--username={_SUPERUSER}", "--no-sync"]
    made = subprocess.run(
        [programs / "initdb", f"--pgdata={folder / 'data'}", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        **as_user,
    )
    assert made.returncode == 0, made.stderr


def _start(
    programs: Path, folder: Path, as_user: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], PostgresServer]:
    for _ in range(3):  # another process may take a port between choosing and starting
        (port,) = free_ports(1)
        command: Sequence[str | Path] = [
            programs / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder,
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
        ]  # fmt: skip
        with (folder / "postgres.log").open("ab") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdout=log, stderr=log, start_new_session=True, **as_user
            )
        server = PostgresServer(programs, folder, port)
        if _ready(process, server):
            return process, server
        process.kill()
        process.wait()
    log = (folder / "postgres.log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"PostgreSQL did not start:\n{log}")


def _ready(process: subprocess.Popen[bytes], server: PostgresServer) -> bool:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.sql("SELECT 1")
            return True
        time.sleep(0.1)
    return False
