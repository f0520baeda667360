"""Workers lose no test and no word of one, whatever a test does to its process."""

import re
import subprocess
import sys
from pathlib import Path

from tests.merges.merging import ROOT

ODD = """
import os, warnings
import pytest

def test_passes(tmp_path): (tmp_path / "own").mkdir()
def test_fails(): print("what it printed"); assert 1 + 1 == 3
def test_dies(): os._exit(9)
def test_after_that(): pass
@pytest.mark.filterwarnings("default")
def test_warns(): warnings.warn("look out")
def test_dies_too(): os._exit(9)
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture(scope="module")
def spoiled():
    yield
    raise ValueError("at the end of the file")
def test_ends_badly(spoiled): pass
"""


def run(folder: Path, *options: str) -> tuple[int, str]:
    for name in ("a", "b"):
        (folder / f"test_{name}.py").write_text(ODD, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.forked_workers", "--workers", "2"]
    command += ["-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "--basetemp", folder / "tmp"]
    done = subprocess.run(
        [*command, *options, folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_every_test_is_run_once_and_told_of(tmp_path: Path) -> None:
    status, said = run(tmp_path, "--override-ini=addopts=", f"--junitxml={tmp_path}/found.xml")
    assert status == 1
    assert "6 failed, 8 passed, 2 skipped, 2 warnings, 2 errors" in said
    assert len(re.findall(r"worker \d ended with status 9 in this test\n", said)) >= 4
    for each in ("what it printed", "look out", "at the end of the file"):
        assert said.count(each) >= 2, each
    named = re.findall(r'<testcase [^>]*name="(\w+)"', (tmp_path / "found.xml").read_text())
    assert sorted(named) == sorted(2 * re.findall(r"def (test_\w+)", ODD))


def test_the_first_failure_stops_all_where_that_is_asked_for(tmp_path: Path) -> None:
    status, said = run(tmp_path, "--override-ini=addopts=", "-x")
    assert status == 1
    assert "stopping after" in said
    assert "test_after_that" not in said


def test_a_file_waits_for_no_test_of_another_one(tmp_path: Path) -> None:
    """The first file ends when the others have run: whoever runs it must not have taken one."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    waits = f"""
from pathlib import Path
from tests.servers.waiting import wait_until

def test_waits():
    done = [Path({str(tmp_path)!r}, name) for name in ("b", "c", "d")]
    wait_until(lambda: all(each.exists() for each in done), "all other files")
"""
    (tmp_path / "test_a.py").write_text(waits, encoding="utf-8")
    for name in ("b", "c", "d"):
        runs = (
            f"from pathlib import Path\ndef test_runs(): Path({str(tmp_path / name)!r}).touch()\n"
        )
        (tmp_path / f"test_{name}.py").write_text(runs, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.forked_workers", "--workers", "2", "-q"]
    command += ["-p", "no:cacheprovider", "--override-ini=addopts=", f"--rootdir={tmp_path}"]
    done = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
