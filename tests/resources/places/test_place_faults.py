"""A full disk, no permission, a store that is read-only, wrong clocks, readers while gc runs."""

import contextlib
import datetime
import itertools
import json
import math
import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.errors import (
    ArtifactReadError,
    AttemptError,
    StoreAccessError,
    StoreFailureError,
    StoreInterruptedError,
    StoreUnreachableError,
)
from resources.places.s3.client import Patience, Timeouts
from resources.store import artifact as artifact_module
from resources.store.artifact_store import ArtifactStore
from resources.store.attempts.journal import Journal
from resources.store.attempts.owners import is_gone, this_process
from resources.store.attempts.unfinished import Unfinished
from tests.resources.processes import line, worker
from tests.servers.faulty_proxy import running_proxy
from tests.servers.privileges import permissions_count
from tests.servers.storage_servers import S3Server

MIB = 1 << 20


@contextlib.contextmanager
def files_no_larger_than(nbytes: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond that, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def publish(store: ArtifactStore, digest: str, nbytes: int = 3 * MIB):
    with store.attempt("checkpoint") as attempt:
        with attempt.open("model.safetensors", nbytes) as writer:
            for _ in range(nbytes // MIB):
                writer.write(digest[:1].encode() * MIB)
        return attempt.publish(digest)


def test_a_quota_that_is_full_leaves_nothing_and_the_next_run_succeeds(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    kept = publish(store, "kept-digest")
    with (
        files_no_larger_than(2 * MIB),
        pytest.raises(StoreFailureError, match="the disk or quota is full; free some space"),
    ):
        publish(store, "some-digest")
    assert store.digests("checkpoint") == ["kept-digest"]
    there = [entry.key for entry in store.place.walk("attempts")]
    assert [key for key in there if not key.endswith("/.digests")] == [
        kept.key("model.safetensors")
    ]
    assert store.verify(publish(store, "some-digest")) == []


def test_a_quota_that_is_full_when_the_manifest_is_written(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    with store.attempt("scores") as attempt:
        attempt.write_bytes("scores.json", b"{}")
        with (
            files_no_larger_than(600),
            pytest.raises(StoreFailureError, match=r"creating artifacts/.* is full"),
        ):
            attempt.publish("some-digest", note="x" * 1000)
        assert store.find("scores", "some-digest") is None
        assert attempt.publish("some-digest", note="x" * 1000).read_json("scores.json") == {}


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("error", StoreInterruptedError), ("truncated", StoreInterruptedError),
     ("timeout", StoreUnreachableError)],
)  # fmt: skip
def test_a_store_that_does_not_answer_says_nothing_of_its_artifacts(
    s3_root: str,
    seaweedfs: S3Server,
    kind: str,
    raised: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is slow or away is not damaged, and nobody is told to remove it."""
    monkeypatch.setattr("resources.places.s3.bucket.TIMEOUTS", Timeouts(connect=5.0, read=2.0))
    with running_proxy(seaweedfs.endpoint, share=0.0, patience=(3600.0, 0.0)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = ArtifactStore.open(s3_root)
        artifact = publish(store, "some-digest")
        store.place.bucket.patience = Patience(tries=2, seconds=math.inf, first_pause=0.01)
        proxy.always = kind
        with pytest.raises(raised):
            store.verify(artifact)


def set_modes(root: Path, folders: int, files: int) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            (Path(folder) / name).chmod(files)
        Path(folder).chmod(folders)


def test_a_read_only_store_is_read_and_never_written(tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = ArtifactStore.open(root.as_uri())
    publish(store, "some-digest")
    store.point("model", "base", "checkpoint", "some-digest")
    set_modes(root, 0o555, 0o444)
    try:
        before = sorted(root.rglob("*"))
        with permissions_count():
            reader = ArtifactStore.open(root.as_uri())
            artifact = reader.resolve("model", "base")
            assert artifact is not None
            assert reader.verify(artifact) == []
            assert reader.digests("checkpoint") == ["some-digest"]
            assert (artifact.folder() / "model.safetensors").stat().st_size == 3 * MIB
            for write in (
                lambda: reader.attempt("scores"),
                lambda: reader.point("model", "other", "checkpoint", "some-digest"),
                lambda: reader.gc(),
            ):
                with pytest.raises(StoreAccessError, match="this user needs to read and write"):
                    write()
        assert sorted(root.rglob("*")) == before
    finally:
        set_modes(root, 0o755, 0o644)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    artifact = publish(store, "some-digest")
    path = tmp_path / artifact.key("model.safetensors")
    path.chmod(0)
    with permissions_count():
        with artifact.source() as source, pytest.raises(ArtifactReadError, match="Permission den"):
            source.read_into("model.safetensors", 0, memoryview(bytearray(10)))
        with pytest.raises(StoreAccessError, match=f"Permission denied.*{tmp_path}"):
            store.verify(artifact)  # it may be right: nothing may set it aside


@pytest.mark.parametrize("hours", [-7, 7])
def test_a_wrong_clock_of_the_writer_misleads_neither_gc_nor_refs(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    true_now, true_time = datetime.datetime.now, time.time

    class Skewed(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return true_now(tz) + datetime.timedelta(hours=hours)

    monkeypatch.setattr(time, "time", lambda: true_time() + 3600 * hours)
    monkeypatch.setattr(artifact_module, "datetime", Skewed)
    with store.attempt("checkpoint", "some-digest") as attempt:
        attempt.write_bytes("model.safetensors", b"weights")
        assert store.gc(grace_seconds=3600).garbage == ()
        artifact = attempt.publish("some-digest")
    said = datetime.datetime.fromisoformat(artifact.manifest["created"])
    assert abs(said - true_now(datetime.UTC)) > datetime.timedelta(hours=6), "the clock was wrong"
    store.point("model", "base", "checkpoint", "some-digest")
    ref = store.ref("model", "base")
    assert ref is not None
    at = datetime.datetime.fromisoformat(ref.current.at)
    assert abs(at - true_now(datetime.UTC)) < datetime.timedelta(minutes=30)

    abandoned = store.attempt("scores")
    abandoned.write_bytes("a.json", b"{}")
    assert store.gc(grace_seconds=3600).garbage == ()
    assert [piece.attempt for piece in store.gc(grace_seconds=0).garbage] == [abandoned.id]
    assert store.verify(artifact) == []


def test_readers_are_not_disturbed_by_gc(store: ArtifactStore) -> None:
    artifact = publish(store, "some-digest")
    done = threading.Event()
    faults: list[BaseException] = []
    reads = 0

    def read() -> None:
        nonlocal reads
        buffer = memoryview(bytearray(MIB))
        try:
            while not done.is_set():
                with artifact.source() as source:
                    for offset in (0, MIB, 2 * MIB):
                        source.read_into("model.safetensors", offset, buffer)
                        assert bytes(buffer) == b"s" * MIB
                        reads += 1
        except BaseException as error:
            faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    collected = 0
    try:
        while collected < 4 or (reads < 6 and not faults):
            store.attempt("scores").write_bytes("a.json", b"{}")
            collected += len(store.gc(grace_seconds=0).garbage)
    finally:
        done.set()
        reader.join()
    assert faults == []
    assert store.verify(artifact) == []


def leave_dead_attempt(store: ArtifactStore) -> str:
    """An attempt at `shared-digest` whose process was killed; its id."""
    with worker("hang", store.uri, "shared-digest") as process:
        assert line(process) == "ready"
        process.kill()
        process.wait()
    (key,) = [e.key for e in store.place.children("attempts") if e.key.endswith(".json")]
    return key.removeprefix("attempts/").removesuffix(".json")


def test_gc_leaves_remains_alone_while_they_are_read(store: ArtifactStore) -> None:
    attempt = leave_dead_attempt(store)
    (found,) = store.unfinished("checkpoint", "shared-digest")
    assert isinstance(found, Unfinished)
    assert found.attempt == attempt
    assert store.gc(grace_seconds=0).garbage == ()
    digests = found.check({"config.json": [1, 2], "model.safetensors": [MIB, 20 * MIB]})
    assert list(digests["config.json"]) == [1, 2]
    buffer = memoryview(bytearray(2))
    found.read_into("config.json", 0, buffer)
    assert bytes(buffer) == b"{}"
    (again,) = store.unfinished("checkpoint", "shared-digest")
    assert again.attempt == attempt, "several may read, and one who was killed is no hindrance"
    found.close()
    found.release()
    (garbage,) = store.gc(grace_seconds=0).garbage
    assert garbage.attempt == attempt
    assert store.unfinished("checkpoint", "shared-digest") == []
    assert store.place.pending("attempts") == []


def test_a_slow_writer_that_was_taken_over_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine, without a sign of life for longer than a living writer can be silent."""
    elsewhere = {**this_process(), "place": "another machine"}
    monkeypatch.setattr("resources.store.attempts.journal.this_process", lambda: elsewhere)
    store = ArtifactStore.open(tmp_path.as_uri())
    with store.attempt("checkpoint", "some-digest") as attempt:
        attempt.write_bytes("model.safetensors", b"weights")
        marker = tmp_path / f"{attempt.folder_key}.json"
        while not json.loads(marker.read_text())["files"]:
            time.sleep(0.01)  # the journal's thread writes what was marked
        attempt.journal.stop()
        assert store.unfinished("checkpoint", "some-digest") == []
        os.utime(marker, (time.time() - 200, time.time() - 200))
        (found,) = store.unfinished("checkpoint", "some-digest")
        assert found.journaled == 7
        with pytest.raises(AttemptError, match=r"taken over by another run.*run again"):
            attempt.publish("some-digest")
    assert store.find("checkpoint", "some-digest") is None


def test_an_upload_is_swept_with_its_attempt_and_not_before(s3_root: str) -> None:
    store = ArtifactStore.open(s3_root)
    with store.attempt("checkpoint") as attempt:
        with attempt.open("model.safetensors", 10 * MIB) as writer:
            writer.write(bytes(9 * MIB))
            assert [e.key for e in store.place.pending("attempts")] == [
                f"{attempt.folder_key}/model.safetensors"
            ]
            assert store.gc(grace_seconds=60).garbage == ()
            writer.write(bytes(MIB))
        assert store.verify(attempt.publish("some-digest")) == []
    place = store.place
    orphan = place.open_writer("attempts/0123/model.safetensors", 20 * MIB)
    orphan.write(memoryview(bytes(17 * MIB)))
    assert store.gc(grace_seconds=0).garbage == (), "its marker may come after the listing"
    orphan.abandon()
    assert place.pending("attempts") == []


def test_who_is_gone() -> None:
    own = this_process()
    assert not is_gone(own, 1e9)
    assert is_gone({**own, "started": "1"}, 0.0), "the id was given to another process"
    with worker("hang", "file:///nowhere/at/all") as process:
        pid = process.pid
        process.kill()
        assert is_gone({**own, "pid": pid, "started": "1"}, 0.0)
    for other in ({**own, "place": "another machine"}, {**own, "place": ""}, {}, {"pid": "x"}):
        assert not is_gone(other, 100.0)
        assert is_gone(other, 200.0)


def test_a_long_journal_stays_short_and_keeps_what_matters(tmp_path: Path) -> None:
    class Hasher:
        def hexdigest(self) -> str:
            return "0" * 64

    store = ArtifactStore.open(tmp_path.as_uri())
    journal = Journal(store.place, "attempts/0123.json", "checkpoint", "some-digest")
    journal.stop()
    for done in range(MIB, 5000 * MIB, MIB):
        journal.mark("model.safetensors", 5000 * MIB, done, Hasher())
    marks = [done // MIB for done in journal.marks("model.safetensors")]
    assert len(marks) <= 128
    assert marks[-64:] == list(range(4936, 5000)), "what is in flight on S3 is among these"
    assert marks == sorted(marks)
    for before, after in itertools.pairwise([0, *marks]):
        assert after - before <= max(1, (5000 - before) / 3), (before, after)
