"""A refresh looks at what is upstream without a Dagster run, and writes what changed alone."""

import logging
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.automation import OBSERVE_JOB, UPSTREAM
from orchestration.definitions import build_definitions
from orchestration.refreshing.log import RunLog
from orchestration.refreshing.looks import look_upstream
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return make_project(tmp_path, {"average": AVERAGE}, experts=2)


def seen(instance: dg.DagsterInstance) -> list[tuple[str | None, str]]:
    """Every observation: partition and version, the oldest first."""
    records = instance.fetch_observations(UPSTREAM, limit=100, ascending=True).records
    observed = [record.asset_observation for record in records]
    return [
        (each.partition, (each.tags or {})["dagster/data_version"]) for each in observed if each
    ]


def look(project: TinyProject, instance: dg.DagsterInstance, log: RunLog) -> list[str]:
    definitions = build_definitions(project.settings())
    taken: Any = (definitions.resources or {})["settings"]
    return look_upstream(instance, definitions, UPSTREAM, taken, log)


def test_what_changed_is_written_and_no_run(
    project: TinyProject, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "look.log")
    assert look(project, instance, log) == []
    first = seen(instance)
    assert {part for part, _ in first} == {"base", "e1", "e2"}
    assert look(project, instance, log) == []
    assert seen(instance) == first, "it says what the last look said"

    project.retrain("e2", seed=7)
    look(project, instance, log)
    (again,) = seen(instance)[len(first) :]
    assert again[0] == "e2"
    assert again not in first
    assert instance.get_runs_count() == 0

    # the daemon looks by runs, on the same revisions: they agree
    job = build_definitions(project.settings()).resolve_job_def(OBSERVE_JOB)
    job.execute_in_process(instance=instance)
    assert dict(seen(instance)) == dict([*first, again])
    assert look(project, instance, log) == []
    assert len(seen(instance)) == len(first) + 1 + 3


def test_what_cannot_be_looked_at_is_told(
    project: TinyProject, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "look.log")
    shutil.rmtree(project.root / "upstream" / "e2")
    assert look(project, instance, log) == []
    (told,) = log.errors.take()
    assert told.startswith("upstream model 'e2': ")
    assert {part for part, _ in seen(instance)} == {"base", "e1"}

    shutil.rmtree(project.root / "upstream")
    (failed,) = look(project, instance, log)
    assert failed.startswith("upstream_model: no upstream model can be reached: ")
    logging.shutdown()
    assert "Traceback" in log.path.read_text(encoding="utf-8")
