"""A process that is killed leaves nothing visible, and gc removes what it wrote."""

import os
import random
import time
from pathlib import Path

import pytest

from resources.errors import AttemptError, DamagedArtifactError
from resources.store.artifact_store import ArtifactStore
from tests.resources.processes import line, worker


def test_killed_while_writing(store: ArtifactStore) -> None:
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("config.json", b"{}")
        published = attempt.publish()
    with worker("hang", store.uri) as process:
        assert line(process) == "ready"
        process.kill()
        process.wait()

    assert store.digests("checkpoint") == [published.digest]
    listed = store.gc(grace_seconds=0, dry_run=True)
    assert listed.dry_run
    assert [piece.attempt for piece in listed.garbage] != [published.manifest["attempt"]]
    (garbage,) = listed.garbage
    assert any(file.endswith("/config.json") for file in garbage.files)
    assert garbage.nbytes > 0
    assert store.gc(grace_seconds=3600).garbage == ()

    (removed,) = store.gc(grace_seconds=0).garbage
    assert (removed.attempt, removed.files) == (garbage.attempt, garbage.files)
    assert store.gc(grace_seconds=0, dry_run=True).garbage == ()
    assert [entry.key for entry in store.place.walk("attempts")] == [published.key("config.json")]
    assert store.verify(published) == []


def test_killed_at_any_moment(store: ArtifactStore) -> None:
    """Every artifact and ref that is visible after a kill is whole."""
    chance = random.Random(2)
    for _ in range(3):
        with worker("publish_on_and_on", store.uri) as process:
            assert line(process) == "ready"
            time.sleep(chance.uniform(0.05, 0.3))
            process.kill()
            process.wait()
        for digest in store.digests("checkpoint"):
            assert store.verify(store.get("checkpoint", digest)) == []
        latest = store.resolve("model", "latest")
        assert latest is None or latest.read_json("config.json")["number"] >= 0
        store.gc(grace_seconds=0)
        kept = {store.get("checkpoint", digest).manifest["attempt"]
                for digest in store.digests("checkpoint")}  # fmt: skip
        entries = store.place.walk("attempts")
        there = {entry.key.split("/")[1].split(".")[0] for entry in entries}
        claimed = {entry.key[9:41] for entry in entries if entry.key.endswith(".claim")}
        assert kept <= there
        assert there - kept <= claimed, "killed between claim and manifest: kept for an hour"


def test_a_living_attempt_is_left_alone(store: ArtifactStore) -> None:
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        assert store.gc(grace_seconds=60).garbage == ()
        assert attempt.publish().read_bytes("a.json") == b"{}"


def test_an_attempt_that_gc_removed_cannot_be_published(store: ArtifactStore) -> None:
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        assert [piece.attempt for piece in store.gc(grace_seconds=0).garbage] == [attempt.id]
        with pytest.raises(AttemptError, match=r"was removed by gc.*run again"):
            attempt.publish()
    assert store.digests("scores") == []


def test_gc_and_publish_at_the_same_moment(store: ArtifactStore, monkeypatch) -> None:
    """gc comes between the publisher's claim and its manifest, and gives way."""
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        create = store.place.create
        tried = []

        def create_while_gc_runs(key: str, data: bytes) -> bool:
            if key.endswith("manifest.json"):
                tried.append(store.gc(grace_seconds=0.0).garbage)
            return create(key, data)

        monkeypatch.setattr(store.place, "create", create_while_gc_runs)
        artifact = attempt.publish()
    assert tried == [()]
    assert store.verify(artifact) == []


def test_gc_lists_the_attempt_then_publish_claims_it(store: ArtifactStore, monkeypatch) -> None:
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        create = store.place.create
        published = []

        def create_after_publish(key: str, data: bytes) -> bool:
            monkeypatch.undo()
            published.append(attempt.publish())
            return create(key, data)

        monkeypatch.setattr(store.place, "create", create_after_publish)
        assert store.gc(grace_seconds=0).garbage == ()
    assert store.verify(published[0]) == []


def test_gc_stops_when_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        artifact = attempt.publish("some-digest")
    (tmp_path / "artifacts/scores/some-digest/manifest.json").write_text("{")
    with pytest.raises(DamagedArtifactError, match="the manifest is no JSON"):
        store.gc(grace_seconds=0)
    assert (tmp_path / artifact.key("a.json")).exists()


def test_leftovers_of_small_writes_are_swept(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    store.probe()
    (tmp_path / "tmp/left").write_bytes(b"12345")
    os.utime(tmp_path / "tmp/left", (1, 1))
    report = store.gc(grace_seconds=60)
    assert [(piece.files, piece.nbytes) for piece in report.garbage] == [(("tmp/left",), 5)]
    assert not (tmp_path / "tmp/left").exists()
