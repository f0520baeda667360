"""What a refresh would cost, told before any work."""

from pathlib import Path

import dagster as dg
import pytest

from orchestration.commands import refresh_command
from orchestration.commands.store_tables import size_text
from orchestration.refreshing.forecast import Forecast, forecast, measured
from orchestration.refreshing.standing import Standing
from tests.orchestration.projects.tiny_project import AVERAGE, make_project


def test_seconds_of_a_set_count_once_and_bytes_each_time() -> None:
    merge = {"bytes": 100, "seconds": 3.0, "memoized": False}
    events = [
        ("run", "a|e1+e2", merge), ("run", "b|e1+e2", merge), ("run", "a|e1+e3", merge),
        ("later", "a|e1+e2", {"bytes": 100, "seconds": 3.0, "memoized": False}),
    ]  # fmt: skip
    found = measured(events)
    assert found.nbytes == 100
    assert found.seconds == pytest.approx(9 / 4)


def test_suites_are_summed_and_nothing_measured_is_not_known() -> None:
    scores = {"zh: seconds": 2.0, "en: seconds": 1.0, "zh: bytes": 10, "en: bytes": 5}
    found = measured([("run", "e1", scores)])
    assert (found.nbytes, found.seconds) == (15, 3.0)
    assert measured([]).nbytes is None
    assert measured([("run", None, {"bytes": 7})]).seconds is None


def standing_of(**wanted: int) -> Standing:
    missing = {
        dg.AssetKey(name.split("__")): {f"p{n}" for n in range(count)}
        for name, count in wanted.items()
    }
    return Standing(missing, {key: set() for key in missing})


def test_an_asset_without_runs_is_judged_by_its_kind(instance: dg.DagsterInstance) -> None:
    for number in range(2):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                ["ties", "scores"], partition=f"p{number}", metadata={"bytes": 10, "seconds": 2.5}
            )
        )
    found = forecast(instance, standing_of(ties__scores=2, dare__scores=4, model=1, old__x=0), ())
    assert found[0] == Forecast("ties/scores", 2, 20, pytest.approx(5.0))
    assert found[1].nbytes == 40
    assert found[2] == Forecast("model", 1, None, None)
    assert len(found) == 3
    sizes = {"model": {"p0": 7, "p1": 9}, "ties/scores": {"p0": 1}}
    found = forecast(instance, standing_of(ties__scores=1, model=2, ties__plan=1), (), sizes)
    assert [each.nbytes for each in found] == [10, 16, None]  # what was measured goes first
    sizes = {"model": {"p0": 7}}
    assert forecast(instance, standing_of(model=2), (), sizes)[0].nbytes is None
    (virtual,) = forecast(instance, standing_of(ties__scores=2), {"ties/scores"})
    assert virtual.nbytes == 0


def test_a_dry_run_makes_nothing_and_tells_every_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path, {"average": AVERAGE}, experts=2)
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    refresh_command.refresh_dry_run()
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["average/merged_checkpoint", "1", "0.0", "MB", "not", "known"] in lines
    folders = [*(tmp_path / "upstream").iterdir()]
    files = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert ["model", "3", *size_text(files).split(), "not", "known"] in lines
    assert ["task_vector", "2", "not", "known", "not", "known"] in lines
    assert "at least" in text
    assert not list((tmp_path / "store").rglob("*.safetensors"))
