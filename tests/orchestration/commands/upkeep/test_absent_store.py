"""A store that is not there is none of which all is well, and no command makes one by looking."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.commands import cli
from orchestration.settings import NAMES

Run = Callable[..., tuple[int, str, str]]
READING = (
    ("verify",), ("verify", "--repair"), ("ls",), ("show", "model/base"), ("path", "model/base"),
    ("lineage", "model/base"), ("impact", "base"), ("champion", "average"), ("refs", "model"),
    ("pull", "e1", "OUT"), ("adopt-refs",), ("withdraw", "base", "--because", "wrong"),
)  # fmt: skip
EITHER = (("gc",), ("leaderboard",), ("doctor",))
"""Commands that say of a new store that it is new, and refuse what can be none."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`ronghe` in this process, on a catalog of one model and tmp_path/store."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "models.yaml").write_text("name: ours\nmodels: [{name: base, source: ../up}]\n")
    monkeypatch.setenv("RONGHE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RONGHE_CATALOG", str(catalog))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.chdir(tmp_path)

    def ronghe(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["ronghe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return ronghe


def unmounted(root: Path) -> None:
    """The root is a link to a disk that is not there."""
    root.symlink_to("/nowhere/at/all")


def a_file(root: Path) -> None:
    """The root is a file."""
    root.write_bytes(b"")


@pytest.mark.parametrize("make", [unmounted, a_file, Path.mkdir, lambda root: None])
def test_what_reads_a_store_refuses_where_there_is_none(
    run: Run, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    root = tmp_path / "store"
    make(root)
    why = "nothing was ever kept there"
    if make is unmounted:
        why = f"{root} is a link to /nowhere/at/all"
    elif make is a_file:
        why = f"{root} is no folder"
    for arguments in READING:
        status, out, err = run(*arguments)
        assert (status, out) == (2, ""), arguments
        assert f"artifact store {root.as_uri()}: {why}" in err
        assert "`ronghe refresh` fills a new one; if another is meant, set RONGHE_STORE" in err
    for arguments in EITHER if make in (unmounted, a_file) else ():
        status, _, err = run(*arguments)
        assert status == 2, arguments
        assert why in err
    assert not root.is_dir() or os.listdir(root) == []


def test_gc_and_doctor_say_that_a_store_is_new_and_make_none(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("gc", "--grace", "0s")
    assert status == 0
    assert (
        f"0.0 MB removed from {(tmp_path / 'store').as_uri()}; nothing was ever kept there" in out
    )
    status, out, _ = run("gc", "--json")
    assert json.loads(out)["absent"] == "nothing was ever kept there"
    assert "never used" in run("doctor")[1]
    assert run("leaderboard")[0] == 1
    assert not (tmp_path / "store").exists()


def test_a_refresh_says_it_before_any_work(run: Run, tmp_path: Path) -> None:
    unmounted(tmp_path / "store")
    status, _, err = run("refresh")
    assert status == 2
    assert "is a link to /nowhere/at/all" in err
    assert "Traceback" not in err
