"""deploy/team for real: Postgres, S3, daemon, and run workers that are killed in mid-merge.

The quickstart: `ronghe refresh` brings its models and their scores up to date on the team's
instance, then one of its recipes is added, and the daemon plans, merges and scores. Its models have
17 MB, so that a merge uploads several parts and can be caught in the act.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import dagster as dg
import psutil
import pytest

from assets.frame.dagster_internals import InstanceRef
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import refresh
from orchestration.settings import NAMES, load_settings
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.dagster_dev import DagsterDev
from tests.orchestration.projects.quickstart_project import SET, make_quickstart, quickstart_recipe
from tests.orchestration.projects.team import DEPLOY, Team, make_team, started
from tests.servers.postgres_server import postgres_programs, running_postgres
from tests.servers.storage_servers import BUCKET, S3Server

MERGED, PARTITION = "average/merged_checkpoint", f"default|{SET}"
SCORES = "average/scores"
ASSIGNMENT = re.compile(r"(# )?[A-Z_]+=")
EVENTS = dg.DagsterEventType


@dataclass(frozen=True)
class MidMerge:
    """A run worker and its step, caught with an upload under way. The step is stopped."""

    run: str
    worker: int
    step: psutil.Process

    def is_over(self) -> bool:
        """Whether the step's process has ended; nobody may be left to collect its status."""
        return not self.step.is_running() or self.step.status() == psutil.STATUS_ZOMBIE


@contextmanager
def instance_of(team: Team, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The team's Dagster instance, as any of its machines sees it."""
    for name in ("DAGSTER_POSTGRES_URL", "PGPASSFILE"):
        monkeypatch.setenv(name, team.settings[name])
    home = InstanceRef.from_dir(team.settings["DAGSTER_HOME"])
    with dg.DagsterInstance.from_ref(home) as instance:
        yield instance


def merging_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """All runs of the merged checkpoints, the oldest first."""
    key = dg.AssetKey.from_user_string(MERGED)
    return [run for run in reversed(instance.get_runs()) if key in (run.asset_selection or ())]


def pid_of(instance: dg.DagsterInstance, run: str, event: dg.DagsterEventType) -> int | None:
    """The process that reported such an event first in a run; None while none has."""
    for entry in instance.all_logs(run, of_type=event):
        metadata = entry.get_dagster_event().engine_event_data.metadata
        if "pid" in metadata:
            return int(str(metadata["pid"].value))
    return None


def uploads(client: Any, root: str) -> set[str]:
    """Uploads below a root that have begun and are not finished."""
    found = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    below = root.removeprefix(f"s3://{BUCKET}/")
    return {upload["UploadId"] for upload in found if upload["Key"].startswith(below)}


def catch(
    served: DagsterDev, instance: dg.DagsterInstance, client: Any, root: str, known: set[str]
) -> MidMerge:
    """Wait for the next merging run, and stop its step once a part of a checkpoint is uploaded.

    From its start the step runs in slices, stopped whenever we look, or a merge could be over
    before a busy machine lets us look again.
    """
    before, caught = uploads(client, root), list[MidMerge]()

    def started() -> bool:
        for run in (each.run_id for each in merging_runs(instance) if each.run_id not in known):
            step = pid_of(instance, run, EVENTS.STEP_WORKER_STARTED)
            worker = pid_of(instance, run, EVENTS.ENGINE_EVENT)
            if step is not None and worker is not None:
                caught.append(MidMerge(run, worker, psutil.Process(step)))
        return bool(caught)

    def uploading() -> bool:
        caught[0].step.resume()
        time.sleep(0.03)
        caught[0].step.suspend()
        return bool(uploads(client, root) - before)

    served.wait(started, "a merge begins", pause=0.1)
    served.wait(uploading, "the merge uploads", pause=0)
    return caught[0]


def attempts_of(store: ArtifactStore, process: int) -> set[str]:
    """Attempts that a process of this machine has begun."""
    notes = {
        entry.key: store.place.read(entry.key)
        for entry in store.place.children("attempts")
        if entry.key.endswith(".json")
    }
    return {
        key.removeprefix("attempts/").removesuffix(".json")
        for key, found in notes.items()
        if found is not None and json.loads(found[0])["pid"] == process
    }


def slots_in_use(instance: dg.DagsterInstance) -> int:
    """Claimed slots of the pool and steps that wait for one; the pool must have its one slot."""
    pool = instance.event_log_storage.get_concurrency_info("gpu")
    assert pool.slot_count == 1
    return pool.active_slot_count + pool.pending_step_count + pool.assigned_step_count


def check_store(store: ArtifactStore) -> None:
    """All that is visible verifies, and each name leads to something that is there."""
    manifests = [entry.key for entry in store.place.walk("artifacts")]
    artifacts = [store.get(*key.split("/")[1:3]) for key in manifests]
    assert [problem for each in artifacts for problem in store.verify(each)] == []
    for asset in ("model", "task_vector", "merge_plan", MERGED, SCORES):
        refs = store.refs(asset).values()
        assert refs, asset
        for ref in refs:
            store.get(ref.kind, ref.digest)


def test_killed_run_workers_are_started_again(
    tmp_path: Path, seaweedfs: S3Server, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = postgres_programs()
    project = make_quickstart(tmp_path, s3_root)
    store = ArtifactStore.open(s3_root, cache=tmp_path / "cache")
    client = boto3.client("s3")
    with running_postgres(programs) as postgres:
        team = make_team(tmp_path, project, postgres, seaweedfs)
        with instance_of(team, monkeypatch) as instance:
            with open_instance(project.settings()) as in_process:
                assert refresh(in_process, project.settings()).failures == []
            project.write_recipe("average", {**quickstart_recipe("average"), "keep": "all"})
            with started(team, tmp_path) as served:
                # The first run loses both its processes.
                first = catch(served, instance, client, s3_root, set())
                dead = attempts_of(store, first.step.pid)
                assert dead
                os.kill(first.worker, signal.SIGKILL)
                first.step.kill()
                # The second loses its run worker only, and its step comes back when all is over.
                second = catch(served, instance, client, s3_root, {first.run})
                os.kill(second.worker, signal.SIGKILL)
                assert store.digests("checkpoint") == [], "it was not in mid-merge"

                def merged() -> bool:
                    runs = merging_runs(instance)
                    return runs[-1].status == dg.DagsterRunStatus.SUCCESS

                served.wait(merged, "a third run succeeds")
                second.step.resume()
                served.wait(second.is_over, "the step of the second run ends")

                runs = merging_runs(instance)
                assert [run.run_id for run in runs[:2]] == [first.run, second.run]
                assert [run.status.value for run in runs] == ["FAILURE", "FAILURE", "SUCCESS"]
                assert {run.root_run_id for run in runs[1:]} == {first.run}
                served.wait(lambda: PARTITION in store.refs(SCORES), "it is scored")
                served.wait(lambda: not slots_in_use(instance), "the pool's slot is free")

    assert set(store.refs(MERGED)) == {PARTITION}
    check_store(store)
    garbage = store.gc(grace_seconds=0, dry_run=True).garbage
    assert {piece.attempt for piece in garbage} == dead
    store.gc(grace_seconds=0)
    assert store.gc(grace_seconds=0, dry_run=True).garbage == ()
    check_store(store)


def test_the_example_of_the_settings_is_complete_and_holds_no_secret() -> None:
    lines = (DEPLOY / "ronghe.env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.removeprefix("# ").split("=", 1) for line in lines if ASSIGNMENT.match(line))
    assert set(NAMES) <= set(given)
    assert load_settings(given | {"RONGHE_STEPS": "processes"}).store == "s3://models/ronghe"
    assert not {name for name in given if name.endswith(("_KEY", "_KEY_ID", "PASSWORD", "_TOKEN"))}
    assert "@" in given["DAGSTER_POSTGRES_URL"]
    user = given["DAGSTER_POSTGRES_URL"].split("//")[1].split("@")[0]
    assert ":" not in user, "the password belongs into PGPASSFILE"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"DAGSTER_POSTGRES_URL": ""}, "DAGSTER_POSTGRES_URL is not set; set it in"),
        (
            {"DAGSTER_CODE_HOST": "gpu1"},
            "is file:///s, and the code server is on gpu1",
        ),
    ],
)
def test_start_refuses(tmp_path: Path, change: dict[str, str], message: str) -> None:
    settings = {
        "RONGHE_CATALOG": "/c", "RONGHE_STORE": "file:///s", "DAGSTER_HOME": str(tmp_path / "d"),
        "DAGSTER_POSTGRES_URL": "postgresql+psycopg2://u@h/d", "DAGSTER_CODE_HOST": "127.0.0.1",
        "DAGSTER_CODE_PORT": "1", **change,
    }  # fmt: skip
    file = tmp_path / "ronghe.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()), "utf-8")
    command = ["bash", str(DEPLOY / "start.sh"), "daemon", str(file)]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert not (tmp_path / "d").exists()


def test_start_says_what_it_needs(tmp_path: Path) -> None:
    command = ["bash", str(DEPLOY / "start.sh"), "code", str(tmp_path / "none.env")]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "ronghe.env.example there and fill it in" in answer.stderr
