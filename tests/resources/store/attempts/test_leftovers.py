"""Copies that a killed process left in the cache go; one that is pulled just now stays."""

import fcntl

from resources.store.attempts.leftovers import remove_dead_copies


def half_pulled(cache, name):
    for part in ("pulling", "locks", "dropping", "folders"):
        (cache / part).mkdir(exist_ok=True)
    (cache / "pulling" / name).mkdir()
    (cache / "pulling" / name / "model.safetensors").write_text("half")
    (cache / "locks" / name).touch()


def test_dead_copies_go_and_living_ones_stay(tmp_path):
    half_pulled(tmp_path, "dead")
    half_pulled(tmp_path, "living")
    (tmp_path / "dropping" / "old-1234").mkdir()
    (tmp_path / "folders" / "whole").mkdir()
    with (tmp_path / "locks" / "living").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert remove_dead_copies(tmp_path) == 2
    assert [each.name for each in (tmp_path / "pulling").iterdir()] == ["living"]
    assert list((tmp_path / "dropping").iterdir()) == []
    assert (tmp_path / "folders" / "whole").is_dir()


def test_there_may_be_no_cache(tmp_path):
    assert remove_dead_copies(tmp_path / "absent") == 0
    assert list(tmp_path.iterdir()) == []
