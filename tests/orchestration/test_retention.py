"""An idle daemon keeps its disk: simulated days of looks leave no more files and rows than one."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration import retention
from orchestration.automation import OBSERVE_JOB, UPSTREAM
from orchestration.automation import observe_schedule as schedule_of
from orchestration.retention import forget_old_looks
from tests.merges.merging import ROOT

PARTITIONS = dg.StaticPartitionsDefinition(["base", "e1", "e2"])


class Upstream:
    """Models as they are out there; one that is absent cannot be reached."""

    def __init__(self) -> None:
        self.revisions = {"base": "1", "e1": "1", "e2": "1"}

    def definitions(self) -> dg.Definitions:
        """The observable source asset and the job, without anything else."""

        @dg.observable_source_asset(name="upstream_model", partitions_def=PARTITIONS)
        def upstream_model() -> dg.DataVersionsByPartition:
            return dg.DataVersionsByPartition(dict(self.revisions))

        job = dg.define_asset_job(OBSERVE_JOB, selection=dg.AssetSelection.assets(UPSTREAM))
        return dg.Definitions(assets=[upstream_model], jobs=[job])


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def look(upstream: Upstream, instance: dg.DagsterInstance) -> str:
    """One look, as the schedule's run takes it; leaves logs as a run of the daemon does."""
    job = upstream.definitions().resolve_job_def(OBSERVE_JOB)
    run_id = job.execute_in_process(instance=instance).run_id
    logs = Path(instance.storage_directory()) / run_id / "compute_logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "step.out").write_text("looked\n")
    return run_id


def left(folder: Path) -> tuple[int, int]:
    """How many files there are, and rows in all of Dagster's databases."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    rows = 0
    for path in files:
        if path.suffix == ".db":
            with sqlite3.connect(path) as database:
                tables = database.execute("select name from sqlite_master where type = 'table'")
                for (table,) in tables.fetchall():
                    rows += database.execute(f'select count(*) from "{table}"').fetchone()[0]
    return len([path for path in files if not path.name.endswith(("-wal", "-shm"))]), rows


def test_days_of_looks_leave_what_one_leaves(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    upstream = Upstream()
    counts: list[tuple[int, int]] = []
    for looks in (4, 1, 2):  # the first day's are more than are kept
        for _ in range(looks):
            look(upstream, instance)
            forget_old_looks(instance, OBSERVE_JOB, UPSTREAM, kept=3)
        counts.append(left(tmp_path))
    assert counts[0] == counts[1] == counts[2]
    assert instance.get_runs_count(dg.RunsFilter(job_name=OBSERVE_JOB)) == 3
    assert len(list(Path(instance.storage_directory()).iterdir())) == 3


def test_the_last_observation_of_each_model_stays(instance: dg.DagsterInstance) -> None:
    upstream = Upstream()
    first = look(upstream, instance)
    last_of_e2 = look(upstream, instance)
    del upstream.revisions["e2"]  # cannot be reached from now on
    for _ in range(3):
        look(upstream, instance)
    assert forget_old_looks(instance, OBSERVE_JOB, UPSTREAM, kept=2) == 2
    left_over = [run.run_id for run in instance.get_runs()]
    assert last_of_e2 in left_over
    assert first not in left_over
    latest = instance.get_latest_storage_id_by_partition(
        UPSTREAM, dg.DagsterEventType.ASSET_OBSERVATION
    )
    assert latest.keys() == {"base", "e1", "e2"}


def test_other_runs_and_runs_under_way_stay(instance: dg.DagsterInstance) -> None:
    upstream = Upstream()

    @dg.job
    def another() -> None:
        pass

    kept = another.execute_in_process(instance=instance).run_id
    for _ in range(3):
        look(upstream, instance)
    job = upstream.definitions().resolve_job_def(OBSERVE_JOB)
    started = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id
    assert forget_old_looks(instance, OBSERVE_JOB, UPSTREAM, kept=1) == 2
    runs = {run.run_id for run in instance.get_runs()}
    assert {kept, started} < runs
    assert len(runs) == 3


def test_years_of_looks_go_a_few_at_a_time(instance: dg.DagsterInstance) -> None:
    upstream = Upstream()
    for _ in range(4):
        look(upstream, instance)
    gone = [forget_old_looks(instance, OBSERVE_JOB, UPSTREAM, kept=1, most=2) for _ in range(3)]
    assert gone == [2, 1, 0]


def test_the_schedule_forgets_before_it_asks_for_a_look(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "KEPT", 1)
    monkeypatch.setattr(forget_old_looks, "__defaults__", (1, 100))
    upstream = Upstream()
    for _ in range(3):
        look(upstream, instance)
    job = dg.define_asset_job(OBSERVE_JOB, selection=dg.AssetSelection.assets(UPSTREAM))
    context = dg.build_schedule_context(instance=instance)
    tick = schedule_of(job, UPSTREAM).evaluate_tick(context)
    assert tick.run_requests is not None
    assert len(tick.run_requests) == 1
    assert instance.get_runs_count() == 1


@pytest.mark.parametrize("file", ["dagster.yaml", "deploy/team/dagster.yaml"])
def test_ticks_are_purged(file: str, tmp_path: Path) -> None:
    settings = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    kinds = {"schedule", "sensor", "auto_materialize"}
    assert settings["retention"].keys() == kinds
    for kind in kinds:
        days = settings["retention"][kind]["purge_after_days"]
        assert days.keys() == {"skipped", "failure", "success", "started"}
        assert all(0 < each <= 7 for each in days.values())
    text = yaml.safe_dump({"retention": settings["retention"]})
    (tmp_path / "dagster.yaml").write_text(text, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as read:
        assert read.get_settings("retention")["sensor"]["purge_after_days"]["skipped"] == 1
