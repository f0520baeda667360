"""Working folders go with their process, or with the next one; nobody removes a living one's."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from merge_ops.working_folders import (
    GOES_BACK,
    HIDDEN,
    OWNER,
    PREFIX,
    SET_ASIDE,
    make_working_folder,
    remove_all,
    remove_working_folder,
    sweep,
    working_folder,
)
from merge_ops.working_folders import folders as module
from tests.merges.merging import ROOT

MAKER = """
import sys, time
from pathlib import Path
from merge_ops.working_folders import make_working_folder
folder = make_working_folder(Path(sys.argv[1]))
(folder / "half").mkdir()
(folder / "half" / "model.safetensors").write_text("half")
print(folder, flush=True)
time.sleep(3600)
"""


def maker(place: Path) -> tuple["subprocess.Popen[str]", Path]:
    """A process that works in a folder until it is killed, and that folder."""
    command = [sys.executable, "-c", MAKER, str(place)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_a_folder_is_there_for_the_duration(tmp_path):
    with working_folder(tmp_path) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(HIDDEN)
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        assert owner["pid"] == os.getpid()
        (folder / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_temporary_ones_lie_where_temporary_files_do(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with working_folder() as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(PREFIX)
        assert folder.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_an_error_removes_it_too(tmp_path):
    with pytest.raises(KeyboardInterrupt), working_folder(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_living_one_stays_and_a_dead_one_goes(tmp_path):
    process, folder = maker(tmp_path)
    try:
        assert sweep(tmp_path) == []
        process.send_signal(signal.SIGSTOP)  # one that stands still is alive
        assert sweep(tmp_path) == []
        assert (folder / "half" / "model.safetensors").exists()
    finally:
        kill(process)
    with working_folder(tmp_path) as another:
        assert list(tmp_path.iterdir()) == [another]
    assert not folder.exists()


def test_ones_own_are_not_swept(tmp_path):
    folder = make_working_folder(tmp_path)
    assert sweep(tmp_path) == []
    assert folder.is_dir()
    remove_working_folder(folder)
    assert list(tmp_path.iterdir()) == []


def test_all_of_a_process_go_when_it_must_end_at_once(tmp_path):
    folders = [make_working_folder(tmp_path), make_working_folder(tmp_path)]
    remove_all()
    assert not any(each.exists() for each in folders)


def test_names_alone_prove_nothing(tmp_path):
    """Links, files, and folders without an owner file are somebody's."""
    target = tmp_path / "target"
    target.mkdir()
    (target / OWNER).write_text("{}")
    (target / "thesis.tex").write_text("years of work")
    (tmp_path / f"{HIDDEN}link").symlink_to(target)
    (tmp_path / f"{HIDDEN}file").write_text("x")
    stranger = tmp_path / f"{HIDDEN}stranger"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("years of work")
    assert sweep(tmp_path) == []
    assert (target / "thesis.tex").exists()
    assert (stranger / "thesis.tex").exists()
    assert sweep(tmp_path / "absent") == []


def test_an_owner_file_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "lock").write_text("")
    folder = tmp_path / f"{HIDDEN}linked"
    folder.mkdir()
    (folder / OWNER).symlink_to(tmp_path / "lock")
    assert sweep(tmp_path) == []
    assert folder.exists()


def test_links_in_a_dead_ones_folder_are_removed_and_not_followed(tmp_path):
    process, folder = maker(tmp_path)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (folder / "link").symlink_to(kept)
    kill(process)
    assert sweep(tmp_path) == [folder]
    assert (kept / "file").exists()


def test_what_another_user_owns_stays(tmp_path, monkeypatch):
    process, folder = maker(tmp_path)
    kill(process)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert sweep(tmp_path) == []
    assert folder.exists()


def test_without_locks_nothing_is_known_and_nothing_removed(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    process, folder = maker(tmp_path)
    kill(process)
    monkeypatch.setattr(module.fcntl, "flock", no_locks)
    with working_folder(tmp_path):
        assert folder.exists()


def test_an_old_result_comes_back_where_its_place_stayed_empty(tmp_path):
    process, folder = maker(tmp_path)
    (folder / SET_ASIDE).mkdir()
    (folder / SET_ASIDE / "model.safetensors").write_text("old")
    (folder / GOES_BACK).write_bytes(os.fsencode(tmp_path / "结果"))
    kill(process)
    sweep(tmp_path)
    assert (tmp_path / "结果" / "model.safetensors").read_text() == "old"


def test_an_old_result_goes_nowhere_else(tmp_path):
    process, folder = maker(tmp_path)
    (folder / SET_ASIDE).mkdir()
    (folder / GOES_BACK).write_bytes(os.fsencode(tmp_path.parent / "elsewhere"))
    kill(process)
    sweep(tmp_path)
    assert not (tmp_path.parent / "elsewhere").exists()


def test_a_fork_leaves_its_parents_folders_alone(tmp_path):
    folder = make_working_folder(tmp_path)
    pid = os.fork()
    if pid == 0:
        remove_all()
        os._exit(0)
    os.waitpid(pid, 0)
    assert folder.is_dir()
    assert sweep(tmp_path) == []
    remove_working_folder(folder)
    assert list(tmp_path.iterdir()) == []
