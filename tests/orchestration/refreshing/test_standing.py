"""What others make is told by a refresh: their runs, and a daemon that says that it lives."""

import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from assets.frame.batches import range_tags
from merge_ops.errors import SettingsError
from orchestration.commands.console import PlainConsole
from orchestration.commands.refresh_command import _print_counts, _print_late
from orchestration.definitions import build_definitions
from orchestration.holding import live_partitions
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.report import AssetCount, RefreshReport
from orchestration.refreshing.standing import daemon_of, look
from tests.orchestration.projects.tiny_project import AVERAGE, make_project

MERGED = dg.AssetKey(["average", "merged_checkpoint"])


def foreign_run(instance: dg.DagsterInstance, key: dg.AssetKey, tags: dict[str, str]) -> str:
    """A run of somebody else that is at work."""
    run = dg.DagsterRun(
        "__ASSET_JOB",
        asset_selection=frozenset([key]),
        status=dg.DagsterRunStatus.STARTED,
        tags=tags,
    )
    return instance.add_run(run).run_id


def beat(instance: dg.DagsterInstance, ago: float) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - ago, "SENSOR", "id", []))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"- 1\n", "to parse to dictionary"),
        (b"\xff{]", "dagster.yaml"),
        (b"nonsense: 1\n", 'unexpected config entry "nonsense"'),
        (b"run_storage: {module: a.b, class: C, config: {}}\n", "import module a.b"),
        (b"[" * 20_000, "recursion"),
        (
            b"storage: {postgres: {postgres_url: 'postgresql://u@[::1]:1/x'}}",
            "`postgresql+psycopg2",
        ),
    ],
)
def test_a_configuration_that_dagster_cannot_use_is_one_line(
    tmp_path: Path, text: bytes, problem: str
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE})
    settings = project.settings()
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    (settings.dagster_home / "dagster.yaml").write_bytes(text)
    with pytest.raises(SettingsError, match="DAGSTER_HOME holds a") as refused:
        open_instance(settings)
    assert problem in str(refused.value)
    assert len(str(refused.value)) < 800


def test_a_foreign_run_and_a_daemon_stand_in_the_table(
    tmp_path: Path, instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE})
    graph = build_definitions(project.settings()).resolve_asset_graph()
    one = foreign_run(instance, dg.AssetKey("model"), {"dagster/partition": "e1"})
    two = foreign_run(
        instance, MERGED, range_tags([("default|e1+e2", "default|e1+e3"), ("gone", "away")])
    )
    other = foreign_run(instance, dg.AssetKey("of_another_project"), {})
    standing = look(instance, graph, {})
    assert set(standing.runs) == {one, two}
    assert other not in standing.runs
    assert standing.elsewhere[dg.AssetKey("model")] == {"e1"}
    sets = {key.split("|")[1] for key in map(str, standing.elsewhere[MERGED])}
    assert {"e1+e2", "e1+e3"} <= sets
    assert "e2+e3" not in sets
    assert "e1" not in standing.missing[dg.AssetKey("model")], "each in one way"

    assert not daemon_of(instance)
    beat(instance, ago=3600)
    assert not daemon_of(instance), "it is gone"
    beat(instance, ago=5)
    assert daemon_of(instance)

    counts = {
        key.to_user_string(): AssetCount(
            len(live_partitions(graph, key)),
            missing=standing.missing[key],
            elsewhere=standing.elsewhere[key],
        )
        for key in (dg.AssetKey("model"), MERGED)
    }
    report = RefreshReport(counts, daemon=daemon_of(instance), others=len(standing.runs))
    console = PlainConsole(least_width=158)
    _print_counts(console, report)
    _print_late(console, report)
    told = capsys.readouterr().out
    assert "running elsewhere" in told
    (line,) = [each for each in told.splitlines() if " model " in each]
    assert [int(word) for word in line.split() if word.isdigit()] == [0, 0, 3, 1]
    assert "A Dagster daemon is running on this DAGSTER_HOME" in told
    assert "2 runs that are not this refresh's are not finished." in told
    assert "again when the daemon's runs have ended." in told


def test_runs_that_are_over_are_nobodys(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = make_project(tmp_path, {"average": AVERAGE})
    graph = build_definitions(project.settings()).resolve_asset_graph()
    run = foreign_run(instance, dg.AssetKey("model"), {"dagster/partition": "e1"})
    instance.report_run_failed(instance.get_run_by_id(run))
    standing = look(instance, graph, {})
    assert standing.runs == []
    assert standing.elsewhere[dg.AssetKey("model")] == set()
    assert "e1" in standing.missing[dg.AssetKey("model")]
