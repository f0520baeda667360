"""What is left on the machine goes where nobody uses it, and only there."""

import multiprocessing
import os
import time

import pytest

from orchestration import leftovers
from orchestration.leftovers import remove_leftovers


@pytest.fixture
def shared(tmp_path, monkeypatch):
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(leftovers, "SHARED", folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return folder


def semaphore(folder, name, age):
    path = folder / name
    path.write_bytes(b"\0" * 32)
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_a_semaphore_that_nobody_has_mapped_goes_after_an_hour(shared):
    old = semaphore(shared, "sem.mp-old", 7200)
    new = semaphore(shared, "sem.mp-new", 60)
    other = semaphore(shared, "sem.postgres", 7200)
    assert remove_leftovers() == [old]
    assert [each.exists() for each in (old, new, other)] == [False, True, True]


def test_one_that_is_mapped_stays(shared):
    import mmap

    path = semaphore(shared, "sem.mp-mapped", 7200)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 32):
        assert remove_leftovers() == []
    assert path.exists()


def test_where_a_process_does_not_tell_all_stay(shared, tmp_path, monkeypatch):
    path = semaphore(shared, "sem.mp-old", 7200)
    (tmp_path / "proc" / "123" / "maps").mkdir(parents=True)  # cannot be read as a file
    monkeypatch.setattr(leftovers, "_PROC", tmp_path / "proc")
    assert remove_leftovers() == []
    assert path.exists()


def test_a_living_one_of_multiprocessing_is_seen_as_mapped():
    lock = multiprocessing.get_context("spawn").Lock()
    mapped = leftovers._mapped_files()
    made = leftovers.SHARED / f"sem.{lock._semlock.name[1:]}"
    assert mapped is None or made.stat().st_ino in mapped
