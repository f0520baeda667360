"""SIGKILL amid the partitions of a run: what was finished stays, the next run does the rest."""

import signal
from pathlib import Path

import dagster as dg
import pytest

from assets.work.merging import merging
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.forked_programs import run_program
from tests.orchestration.projects.tiny_project import AVERAGE, make_project

FINISHED = 2
KILLED = f"""
import os, signal
from assets.frame import batches
plain, done = batches.Batch.report, []
def report(self, key, *rest):
    plain(self, key, *rest)
    if self._context.asset_key.path[-1] == "merged_checkpoint":
        done.append(key)
        if len(done) == {FINISHED}:
            os.kill(os.getpid(), signal.SIGKILL)
batches.Batch.report = report
from orchestration.commands.refresh_command import refresh
refresh()
"""
MERGED = "average/merged_checkpoint"


def test_a_kill_in_the_middle_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unscored = {key: value for key, value in AVERAGE.items() if key != "suite"}
    project = make_project(tmp_path, {"average": unscored})
    killed = run_program(KILLED, tmp_path, environment=project.environment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    store = ArtifactStore.open(project.store, catalog=project.settings().catalog_name)
    made = set(store.digests("checkpoint"))
    assert len(made) == FINISHED

    merged: list[int] = []
    plain = merging.carry_out

    def counting(*given: object, **named: object) -> object:
        merged.append(1)
        return plain(*given, **named)

    monkeypatch.setattr(merging, "carry_out", counting)
    settings = project.settings()
    with open_instance(settings) as instance:
        key = dg.AssetKey.from_user_string(MERGED)
        finished = instance.get_materialized_partitions(key)
        assert len(finished) == FINISHED, "what was finished stays"
        report = refresh(instance, settings)
        assert report.failures == []
        assert report.late == 0
        assert len(merged) == 4 - FINISHED, "nothing is merged twice"
        assert len(instance.get_materialized_partitions(key)) == 4
        assert refresh(instance, settings).rerun == 0
    assert made < set(store.digests("checkpoint"))
