"""What lies where a cache keeps a note, and is none, is neither waited for nor read whole."""

import os
from pathlib import Path

import pytest

from resources.locks import opened_lock, take_lock
from resources.upstream.cache_notes import MOST_REF, read_note, read_ref
from resources.upstream.hub_cache import cached_snapshot
from resources.upstream.local_copies import LocalCopies
from tests.resources.special_files import put_special

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "long", "no text", "dead link"])
def test_a_ref_that_is_none_names_no_snapshot(tmp_path: Path, kind: str) -> None:
    model = tmp_path / "models--team--herbs"
    ref = model / "refs" / "main"
    ref.parent.mkdir(parents=True)
    (model / "snapshots" / COMMIT).mkdir(parents=True)
    ref.write_text(f"{COMMIT}\n")
    assert read_ref(ref) == COMMIT
    assert cached_snapshot("team/herbs", "main", tmp_path) == model / "snapshots" / COMMIT
    assert LocalCopies(model, "herbs").find("main") == model / "snapshots" / COMMIT
    ref.unlink()
    if not put_special(ref, kind):
        ref.write_bytes(COMMIT.encode() * MOST_REF if kind == "long" else b"\xff\xfe")
    assert cached_snapshot("team/herbs", "main", tmp_path) is None
    assert LocalCopies(model, "herbs").find("main") is None
    if kind != "no text":
        with pytest.raises((OSError, ValueError)):
            read_note(ref, MOST_REF)


def test_a_lock_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    os.mkfifo(path)
    with opened_lock(path) as lock:
        take_lock(lock, path, "x", patience=0.0)
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError), opened_lock(path):
        pass
