"""`make ui` on a project: Dagster's webserver and daemon as users run them, asked over GraphQL."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.child_forks import forking_environment
from tests.merges.merging import ROOT
from tests.orchestration.projects.tiny_project import TinyProject
from tests.servers.storage_servers import free_ports
from tests.servers.waiting import HANG_SECONDS, wait_until

LOCATION = "orchestration.definitions"
LAUNCH = """mutation($job: String!) {
  launchRun(executionParams: {runConfigData: {}, selector: {
  repositoryLocationName: "orchestration.definitions", repositoryName: "__repository__",
  jobName: $job}}) { __typename ... on LaunchRunSuccess { run { runId } } } }"""
RUNS = "{ runsOrError(limit: 200) { ... on Runs { results { runId status jobName } } } }"
AT_WORK_OR_OVER = """{ runsOrError(limit: 200) { ... on Runs { results { runId status } } }
  partitionBackfillsOrError(limit: 50) { ... on PartitionBackfills { results { status } } } }"""
MATERIALIZED = """query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetMaterializations(limit: 500) { runId partition } } } }"""
TICKS = """query($name: String!) { sensorOrError(sensorSelector: {sensorName: $name,
  repositoryLocationName: "orchestration.definitions", repositoryName: "__repository__"}) {
  ... on Sensor { sensorState { status ticks(limit: 1) { timestamp status } } } } }"""
LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries { loadStatus
  locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
PATIENCE = {
    f"DAGSTER_{name}": f"{HANG_SECONDS:.0f}"
    for name in (
        "GRPC_TIMEOUT_SECONDS",
        "REPOSITORY_GRPC_TIMEOUT_SECONDS",
        "SCHEDULE_GRPC_TIMEOUT_SECONDS",
        "SENSOR_GRPC_TIMEOUT_SECONDS",
        "PROXY_SERVER_HEARTBEAT_TIMEOUT",
        "CODE_SERVER_STARTUP_TIMEOUT",
    )
}
"""Dagster's own bounds, which a slow machine would meet: runs that it gives up are other runs."""
OVER = {"SUCCESS", "FAILURE", "CANCELED"}
AT_WORK = {"REQUESTED", "CANCELING", "FAILING"}


@dataclass(frozen=True)
class DagsterDev:
    """A running web server with its daemon."""

    address: str
    log: Path

    def ask(self, query: str, **variables: object) -> Any:
        """The data that a GraphQL query or mutation answers with."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def ready(self) -> bool:
        """Whether the webserver has the code server's definitions."""
        entries = self.ask(LOCATIONS)["workspaceOrError"]["locationEntries"]
        loaded = [each["locationOrLoadError"]["__typename"] for each in entries]
        return loaded == ["RepositoryLocation"]

    def launch(self, job: str) -> str:
        """Queue a run of a job; returns its id."""
        launched = self.ask(LAUNCH, job=job)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def runs(self) -> dict[str, str]:
        """Status of each run, by id."""
        return {run["runId"]: run["status"] for run in self.ask(RUNS)["runsOrError"]["results"]}

    def jobs(self, runs: set[str]) -> set[str]:
        """Names of the jobs that these runs are of."""
        known = self.ask(RUNS)["runsOrError"]["results"]
        return {run["jobName"] for run in known if run["runId"] in runs}

    def materialized(self, asset: str, runs: set[str]) -> set[str | None]:
        """Partitions of an asset that any of these runs materialized."""
        node = self.ask(MATERIALIZED, key={"path": asset.split("/")})["assetNodeOrError"]
        events = node["assetMaterializations"]
        return {event["partition"] for event in events if event["runId"] in runs}

    def last_tick(self, sensor: str) -> float:
        """When the daemon's last look that has ended began; 0.0 before the first one."""
        ticks = self.ask(TICKS, name=sensor)["sensorOrError"]["sensorState"]["ticks"]
        done = [tick["timestamp"] for tick in ticks if tick["status"] in ("SUCCESS", "SKIPPED")]
        return float(done[0]) if done else 0.0

    def wait(self, until: Callable[[], bool], what: str, pause: float = 1.0) -> None:
        """Wait until something holds, looking every `pause` seconds; fails with the log's end."""

        def said() -> str:
            end = self.log.read_text(encoding="utf-8", errors="replace")[-6000:]
            return f"{what}\n{self.runs()}\n{end}"

        wait_until(until, said, pause)

    def _all_over(self) -> set[str] | None:
        """Ids of all runs; None while a run or a backfill, as of several partitions, is at work."""
        told = self.ask(AT_WORK_OR_OVER)
        backfills = told["partitionBackfillsOrError"]["results"]
        runs = {each["runId"]: each["status"] for each in told["runsOrError"]["results"]}
        at_work = [each for each in backfills if each["status"] in AT_WORK]
        return set(runs) if not at_work and set(runs.values()) <= OVER else None

    def settle(self, sensor: str) -> set[str]:
        """Wait until all runs are over and a look of the sensor after that asks for nothing more.

        Returns the ids of all runs.
        """
        while True:
            self.wait(lambda: self._all_over() is not None, "all runs over")
            known, quiet_since = self._all_over(), time.time()
            if known is None:
                continue
            self._look_after(sensor, quiet_since)
            if self._all_over() == known:
                return known

    def _look_after(self, sensor: str, moment: float) -> None:
        self.wait(lambda: self.last_tick(sensor) > moment, "the sensor looks")


@contextmanager
def dagster_dev(project: TinyProject, home: Path) -> Iterator[DagsterDev]:
    """Start both on the project; caches go below `home`."""
    (port,) = free_ports(1)
    instance = Path(project.environment["DAGSTER_HOME"])
    instance.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dagster.yaml", instance / "dagster.yaml")
    command = [str(Path(sys.executable).with_name("ronghe")), "ui", "--port", str(port)]
    log = project.root / "ronghe-ui.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={
                **os.environ,
                **forking_environment(),
                **PATIENCE,
                **project.environment,
                "HOME": str(home),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        served = DagsterDev(f"http://127.0.0.1:{port}", log)
        served.wait(lambda: _answers(served), "the web server answers")
        yield served
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answers(served: DagsterDev) -> bool:
    try:
        served.ask("{ version }")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True
