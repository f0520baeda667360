"""What `ronghe refresh` and `ronghe leaderboard` print."""

import re
from pathlib import Path

import pytest

from orchestration.commands import refresh_command as commands
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    project = make_project(tmp_path, {"average": AVERAGE})
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    return project


def test_refresh_counts_partitions_and_leaderboard_says_where_to_go_on(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        commands.leaderboard()
    assert "run `ronghe refresh` first" in capsys.readouterr().out

    commands.refresh()
    first = capsys.readouterr()
    assert "merged checkpoints: 4 made, 0 up to date" in first.out
    assert first.err == ""

    project.retrain("e1", seed=5)
    commands.refresh()
    update = capsys.readouterr().out
    assert "merged checkpoints: 3 made, 1 up to date" in update
    assert "scores: 3 made, 1 up to date" in update
    assert "expert sets merged: e1+e2, e1+e2+e3, e1+e3" in update

    commands.refresh()
    idle = capsys.readouterr().out
    assert "merged checkpoints: 0 made, 4 up to date" in idle
    assert "expert sets merged: none" in idle

    commands.leaderboard()
    table = capsys.readouterr().out
    for part in ("leaderboard: colours", "e1+e2+e3", "base (base)", "e2 (expert)", "make ui"):
        assert part in table
    best = next(line for line in table.splitlines() if line.startswith("best merged checkpoint"))
    assert re.search(r"virtual: `ronghe materialize [0-9a-f]{12}` writes it", best)


def test_a_failure_is_one_clear_line_and_status_1(
    project: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    (project.root / "upstream" / "e2" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(SystemExit, match="1"):
        commands.refresh()
    printed = capsys.readouterr()
    assert "failed: model [e2]: CheckpointError: " in printed.out
    assert "refresh.log" in printed.out
    assert "Traceback" not in printed.out + printed.err
