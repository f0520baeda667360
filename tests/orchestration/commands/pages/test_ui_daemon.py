"""`ronghe ui` says that its daemon has ended, and says nothing where it ends it itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.commands.pages import ui_command
from tests.servers.waiting import wait_until


@pytest.mark.parametrize(
    ("program", "told"),
    [("kill -9 $$", "the daemon was killed by signal 9"), ("exit 3", "ended with exit code 3")],
)
def test_a_daemon_that_ends_is_told(
    program: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    daemon = tmp_path / "dagster-daemon"
    daemon.write_text(f"#!/bin/sh\n{program}\n")
    daemon.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with ui_command._Daemon(["-m", "nothing"]):
        said: list[str] = []

        def is_told() -> bool:
            said.append(capsys.readouterr().err)
            return "start `ronghe ui` again" in " ".join("".join(said).split())

        wait_until(is_told, lambda: "".join(said), 0.02)
    assert told in " ".join("".join(said).split())


def test_a_daemon_that_is_ended_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    daemon = tmp_path / "dagster-daemon"
    daemon.write_text("#!/bin/sh\nexec sleep 600\n")
    daemon.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with ui_command._Daemon(["-m", "nothing"]) as running:
        watched: subprocess.Popen[bytes] = running._process
        assert watched.poll() is None
    running._watcher.join()
    assert watched.returncode == -15
    assert capsys.readouterr().err == ""
