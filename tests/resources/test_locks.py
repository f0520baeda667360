"""A lock that is held is told with its holder, and waited for no longer than makes sense."""

import fcntl
import logging
import os
import signal
import subprocess
import sys

import pytest

from resources import locks
from resources.errors import StoreLockedError
from resources.locks import holder_of, take_lock
from resources.places.local import LocalPlace
from tests.merges.merging import ROOT
from tests.servers.waiting import wait_until

HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "ab")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of a store until its input ends."""
    path = tmp_path / ".lock"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_holder_is_named(tmp_path, holder):
    told = holder_of(tmp_path / ".lock")
    assert told.startswith(f"process {holder.pid} (`")
    assert "which runs since 20" in told
    holder.send_signal(signal.SIGSTOP)
    wait_until(lambda: "stands still" in holder_of(tmp_path / ".lock"), "it stops")
    assert f"`kill -CONT {holder.pid}` lets it go on" in holder_of(tmp_path / ".lock")


def test_a_lock_that_nobody_here_holds_is_told_as_that(tmp_path):
    (tmp_path / "lock").touch()
    assert "another machine, or another container" in holder_of(tmp_path / "lock")
    assert "another machine, or another container" in holder_of(tmp_path / "absent")


def test_a_name_is_not_changed_below_a_lock_that_nobody_lets_go(tmp_path, holder, monkeypatch):
    monkeypatch.setattr("resources.places.local.LOCK_PATIENCE", 0.0)
    place = LocalPlace(tmp_path)
    place.put("refs/a", b"old")
    _, tag = place.read("refs/a") or (b"", "")
    with pytest.raises(StoreLockedError, match=rf"is locked by process {holder.pid} \(.*end it"):
        place.replace("refs/a", b"new", tag)
    assert place.read("refs/a") == (b"old", tag)
    holder.communicate()
    assert place.replace("refs/a", b"new", tag)


def test_who_is_waited_for_is_logged(tmp_path, holder, monkeypatch, caplog):
    monkeypatch.setattr(locks, "TOLD_AFTER", 0.0)
    path = tmp_path / ".lock"

    def let_go(seconds):
        holder.communicate()

    monkeypatch.setattr(locks.time, "sleep", let_go)
    with path.open("ab") as file, caplog.at_level(logging.WARNING, "ronghe.waiting"):
        take_lock(file.fileno(), path, "a copy of the artifact 0123")
    (record,) = caplog.records
    assert record.getMessage().startswith("waiting for a copy of the artifact 0123: ")
    assert f"is locked by process {holder.pid}" in record.getMessage()


def test_shared_locks_do_not_wait_for_each_other(tmp_path):
    path = tmp_path / "lock"
    with path.open("ab") as one, path.open("ab") as two:
        take_lock(one.fileno(), path, "x", shared=True)
        take_lock(two.fileno(), path, "x", shared=True)
        with pytest.raises(StoreLockedError, match=rf"locked by process {os.getpid()}"):
            take_lock(two.fileno(), path, "x", patience=0.0)


def test_the_lock_is_really_taken(tmp_path):
    path = tmp_path / "lock"
    with path.open("ab") as one, path.open("ab") as two:
        take_lock(one.fileno(), path, "x")
        with pytest.raises(BlockingIOError):
            fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_more_files_of_a_store_than_the_soft_limit_may_be_open(tmp_path):
    """Readers of published shards stay open; the limit is raised when it is reached."""
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from resources.places.local import LocalPlace\n"
        "place = LocalPlace(Path(sys.argv[1]))\n"
        "place.put('a', b'x')\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))\n"
        "readers = [place.open_reader('a') for _ in range(80)]\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
