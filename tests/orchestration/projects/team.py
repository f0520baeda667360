"""A team's Ronghe as deploy/team starts it: code server, webserver, daemon on Postgres and S3."""

import os
import signal
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.child_forks import forking_environment
from tests.merges.merging import ROOT
from tests.orchestration.projects.dagster_dev import PATIENCE, DagsterDev
from tests.orchestration.projects.tiny_project import TinyProject
from tests.servers.postgres_server import PostgresServer
from tests.servers.storage_servers import S3Server, free_ports

DEPLOY = ROOT / "deploy" / "team"
DATABASE = "ronghe_team"
PASSWORD = "no-real-secret-123"


@dataclass(frozen=True)
class Team:
    """What a team's machine has: settings, and the programs on PATH that its scripts need."""

    settings: dict[str, str]
    file: Path
    path: str

    def environment(self) -> dict[str, str]:
        """A bare environment, as a service manager gives it; the settings come from the file."""
        kept = ("HOME", "LANG", "RONGHE_REQUIRE_BROWSER", "RONGHE_REQUIRE_POSTGRES")
        passed = {name: os.environ[name] for name in kept if name in os.environ}
        return {**passed, **forking_environment(), "PATH": self.path}

    def script(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of the scripts."""
        return ["bash", str(DEPLOY / name), *arguments]


def make_team(folder: Path, project: TinyProject, postgres: PostgresServer, s3: S3Server) -> Team:
    """Write the settings and the files of secrets, and create the database by the script."""
    code, web = free_ports(2)
    secrets = {"pgpass": f"127.0.0.1:{postgres.port}:{DATABASE}:{DATABASE}:{PASSWORD}\n"}
    secrets["aws-credentials"] = (
        f"[default]\naws_access_key_id = {s3.access_key}\naws_secret_access_key = {s3.secret_key}\n"
    )
    for name, text in secrets.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o600)
    settings = {
        **project.environment,
        **PATIENCE,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3.endpoint,
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws-credentials"),
        "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://{DATABASE}@127.0.0.1:{postgres.port}"
        f"/{DATABASE}",
        "PGPASSFILE": str(folder / "pgpass"),
        "DAGSTER_CODE_HOST": "127.0.0.1",
        "DAGSTER_CODE_PORT": str(code),
        "DAGSTER_CODE_LISTEN": "127.0.0.1",
        "DAGSTER_WEBSERVER_HOST": "127.0.0.1",
        "DAGSTER_WEBSERVER_PORT": str(web),
    }
    home = Path(settings["DAGSTER_HOME"])
    home.mkdir()
    (home / "dagster.yaml").symlink_to(DEPLOY / "dagster.yaml")  # start.sh does the same
    file = folder / "ronghe.env"
    lines = [f"{name}='{value}'\n" for name, value in settings.items()]
    file.write_text("".join(lines), encoding="utf-8")
    path = os.pathsep.join(
        [str(postgres.programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    team = Team(settings, file, path)
    for _ in range(2):  # what is there stays
        subprocess.run(
            team.script("create-database.sh", DATABASE),
            env={**team.environment(), **postgres.administration()},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    postgres.sql(f"ALTER ROLE {DATABASE} PASSWORD '{PASSWORD}'")
    return team


@contextmanager
def started(team: Team, folder: Path) -> Iterator[DagsterDev]:
    """All three processes, each by `start.sh`; their logs are in `folder`."""
    address = f"http://127.0.0.1:{team.settings['DAGSTER_WEBSERVER_PORT']}"
    served = DagsterDev(address, folder / "daemon.log")
    with ExitStack() as stack:
        for what in ("code", "webserver", "daemon"):
            stack.enter_context(_process(team, what, folder / f"{what}.log"))
        served.wait(lambda: _answers(served), "the webserver answers")
        yield served


@contextmanager
def _process(team: Team, what: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            team.script("start.sh", what, str(team.file)),
            env=team.environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
        assert process.poll() is None, f"{what} ended:\n{log.read_text(encoding='utf-8')}"
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(served: DagsterDev) -> bool:
    try:
        return served.ready()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
