"""What becomes visible, when, and what is refused."""

import contextlib
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from resources.errors import (
    AttemptError,
    ContentConflictError,
    DamagedArtifactError,
    MissingArtifactError,
    StoreUnreachableError,
    UnsafeStoreError,
)
from resources.places.local import LocalPlace
from resources.store.artifact import FileRecord, content_digest
from resources.store.artifact_store import ArtifactStore
from resources.store.attempts.attempt import Attempt
from resources.store.cache import FolderCache
from tests.resources.processes import line, worker


def keys(store: ArtifactStore, prefix: str = "attempts") -> list[str]:
    return [entry.key for entry in store.place.walk(prefix)]


def test_published_files_are_found_and_read_back(store: ArtifactStore) -> None:
    with store.attempt("checkpoint") as attempt:
        with attempt.open("model.safetensors", 6) as writer:
            writer.write(b"abc")
            writer.write(memoryview(b"def"))
        attempt.write_bytes("模板/chat.jinja", "你好".encode())
        attempt.write_json("config.json", {"b": 1, "a": "中"})
        assert store.find("checkpoint", "plan-digest") is None
        published = attempt.publish("plan-digest", licences=["apache-2.0"], plan={"method": "ties"})

    found = store.get("checkpoint", "plan-digest")
    assert found.manifest == published.manifest
    assert found.manifest["licences"] == ["apache-2.0"]
    assert found.manifest["plan"] == {"method": "ties"}
    assert found.files["model.safetensors"] == FileRecord(
        "model.safetensors", 6, blake3(b"abcdef").hexdigest()
    )
    assert found.read_bytes("模板/chat.jinja").decode() == "你好"
    assert found.read_json("config.json") == {"a": "中", "b": 1}
    assert found.nbytes == sum(len(found.read_bytes(file)) for file in found.files)
    assert store.verify(found) == []
    assert store.digests("checkpoint") == ["plan-digest"]
    assert store.digests("scores") == []


def test_without_a_digest_the_content_is_the_address(store: ArtifactStore) -> None:
    def publish(data: bytes) -> str:
        with store.attempt("scores") as attempt:
            attempt.write_bytes("scores.json", data)
            return attempt.publish().digest

    assert publish(b"1") == publish(b"1") != publish(b"2")
    expected = FileRecord("scores.json", 1, blake3(b"1").hexdigest())
    assert publish(b"1") == content_digest([expected])


def test_the_content_digest_ignores_the_order_of_files_and_nothing_else() -> None:
    one, two = FileRecord("a", 1, "1" * 64), FileRecord("b", 1, "2" * 64)
    assert content_digest([one, two]) == content_digest([two, one])
    different = [
        [one],
        [FileRecord("a", 1, "2" * 64), FileRecord("b", 1, "1" * 64)],
        [FileRecord("a", 2, "1" * 64), two],
        [FileRecord("c", 1, "1" * 64), two],
    ]
    assert len({content_digest(files) for files in [[one, two], *different]}) == 5


def test_publishing_the_same_again_succeeds_and_leaves_one_copy(store: ArtifactStore) -> None:
    artifacts = []
    for note in ("first", "second"):
        with store.attempt("scores") as attempt:
            attempt.write_bytes("scores.json", b"{}")
            artifacts.append(attempt.publish("shared-digest", note=note))
    assert [artifact.manifest["note"] for artifact in artifacts] == ["first", "first"]
    assert keys(store) == [f"attempts/{artifacts[0].manifest['attempt']}/scores.json"]


def test_other_contents_under_one_digest_are_refused(store: ArtifactStore) -> None:
    for data, refused in ((b"1", False), (b"2", True)):
        expected = (
            pytest.raises(ContentConflictError, match=r"other contents: scores\.json differs\. The")
            if refused
            else contextlib.nullcontext()
        )
        with store.attempt("scores") as attempt:
            attempt.write_bytes("scores.json", data)
            with expected:
                attempt.publish("shared-digest")
    assert store.get("scores", "shared-digest").read_bytes("scores.json") == b"1"
    assert len(keys(store)) == 1


def test_an_exception_while_writing_leaves_nothing(store: ArtifactStore) -> None:
    def fail() -> None:
        with store.attempt("checkpoint") as attempt:
            attempt.write_bytes("config.json", b"{}")
            with attempt.open("model.safetensors", 30 << 20) as writer:
                writer.write(bytes(20 << 20))
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert keys(store) == keys(store, "artifacts") == []


def test_a_caught_exception_does_not_publish_half_a_file(store: ArtifactStore) -> None:
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("config.json", b"{}")
        with (
            contextlib.suppress(ValueError),
            attempt.open("model.safetensors", 30 << 20) as writer,
        ):
            writer.write(bytes(20 << 20))
            raise ValueError
        artifact = attempt.publish()
    assert set(artifact.files) == {"config.json"}
    assert keys(store) == [artifact.key("config.json")]


def test_leaving_without_publishing_leaves_nothing(store: ArtifactStore) -> None:
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("config.json", b"{}")
    assert keys(store) == keys(store, "artifacts") == []


def test_sizes_must_be_as_announced(store: ArtifactStore) -> None:
    def write(data: bytes) -> None:
        with attempt.open("model.safetensors", 4) as writer:
            writer.write(data)

    with store.attempt("checkpoint") as attempt:
        with pytest.raises(AttemptError, match="announced with 4 bytes; 3 came"):
            write(b"123")
        with pytest.raises(AttemptError, match="announced with 4 bytes; more came"):
            write(b"12345")
        with pytest.raises(AttemptError, match="has no files"):
            attempt.publish()
        write(b"1234")
        assert attempt.publish().nbytes == 4


def test_an_attempt_is_used_once_and_properly(store: ArtifactStore) -> None:
    with store.attempt("checkpoint") as attempt:
        with attempt.open("a.json", 2) as writer:
            with pytest.raises(AttemptError, match=r"'a\.json' is still being written"):
                attempt.publish()
            writer.write(b"{}")
        with pytest.raises(AttemptError, match=r"cannot write 'a\.json' twice"):
            attempt.write_bytes("a.json", b"")
        attempt.publish()
        with pytest.raises(AttemptError, match="published already; start another"):
            attempt.publish()
        with pytest.raises(AttemptError, match="this attempt is published already"):
            attempt.write_bytes("b.json", b"")


def test_eight_processes_publish_at_once(store_root: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(worker("publish", store_root, str(go), "same")) for _ in range(8)
        ]
        assert [line(racer) for racer in racers] == ["ready"] * 8
        go.touch()
        winners = {line(racer) for racer in racers}
    store = ArtifactStore.open(store_root)
    assert winners == {store.get("scores", "shared-digest").manifest["attempt"]}
    assert keys(store) == [f"attempts/{winners.pop()}/scores.json"]


def test_threads_with_two_contents_race_for_one_digest(store: ArtifactStore) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def race(content: str) -> None:
        with store.attempt("scores") as attempt:
            attempt.write_bytes("scores.json", content.encode())
            start.wait()
            try:
                outcomes.append(attempt.publish("shared-digest").read_bytes("scores.json").decode())
            except ContentConflictError:
                outcomes.append("conflict")

    threads = [threading.Thread(target=race, args=(str(number % 2),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    visible = store.get("scores", "shared-digest").read_bytes("scores.json").decode()
    assert sorted(outcomes) == sorted([visible] * 4 + ["conflict"] * 4)
    assert len(keys(store)) == 1


def test_a_lost_answer_to_the_publishing_write_loses_nothing(tmp_path: Path) -> None:
    """The manifest is written, the answer never comes: the files must stay, a retry succeeds."""

    class LosesAnswers(LocalPlace):
        def create(self, key: str, data: bytes) -> bool:
            created = super().create(key, data)
            if key.endswith("manifest.json") and created:
                raise StoreUnreachableError("no answer")
            return created

    store = ArtifactStore(LosesAnswers(tmp_path), FolderCache(tmp_path / "cache"))

    def publish(retry: bool) -> Attempt:
        with store.attempt("scores") as attempt:
            attempt.write_bytes("a.json", b"{}")
            with contextlib.suppress(StoreUnreachableError) if retry else contextlib.nullcontext():
                attempt.publish("shared-digest")
            if retry:
                attempt.publish("shared-digest")
        return attempt

    with pytest.raises(StoreUnreachableError, match="no answer"):
        publish(retry=False)
    found = store.get("scores", "shared-digest")
    assert store.verify(found) == []
    assert publish(retry=False).id != found.manifest["attempt"]
    assert store.verify(found) == []


def test_a_lost_answer_and_a_second_publish_of_the_same_attempt(tmp_path: Path) -> None:
    class LosesOne(LocalPlace):
        lost = False

        def create(self, key: str, data: bytes) -> bool:
            created = super().create(key, data)
            if key.endswith("manifest.json") and not self.lost:
                self.lost = True
                raise StoreUnreachableError("no answer")
            return created

    store = ArtifactStore(LosesOne(tmp_path), FolderCache(tmp_path / "cache"))
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        with pytest.raises(StoreUnreachableError, match="no answer"):
            attempt.publish("shared-digest")
        artifact = attempt.publish("shared-digest")
    assert artifact.manifest["attempt"] == attempt.id
    assert store.verify(artifact) == []


@pytest.mark.parametrize("ignored", ["create", "replace"])
def test_a_store_that_ignores_conditions_is_refused(tmp_path: Path, ignored: str) -> None:
    class Careless(LocalPlace):
        def create(self, key: str, data: bytes) -> bool:
            if ignored != "create":
                return super().create(key, data)
            self.put(key, data)
            return True

        def replace(self, key: str, data: bytes, tag: str) -> bool:
            if ignored != "replace":
                return super().replace(key, data, tag)
            self.put(key, data)
            return True

    store = ArtifactStore(Careless(tmp_path), FolderCache(tmp_path / "cache"))
    header = {"create": "If-None-Match", "replace": "If-Match"}[ignored]
    with pytest.raises(UnsafeStoreError, match=f"does not honour {header}.*nothing is written"):
        store.attempt("scores")
    with pytest.raises(UnsafeStoreError, match=header):
        store.point("model", None, "scores", "some-digest")
    assert keys(store) == []


def test_what_is_missing_or_damaged_is_said(store: ArtifactStore) -> None:
    with pytest.raises(MissingArtifactError, match="has no scores artifact some-digest"):
        store.get("scores", "some-digest")
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"12")
        attempt.write_bytes("b.json", b"34")
        artifact = attempt.publish("some-digest")
    with pytest.raises(DamagedArtifactError, match=r"has no file 'c\.json'; it has a\.json, b\.js"):
        artifact.read_bytes("c.json")
    store.place.delete([artifact.key("a.json")])
    store.place.put(artifact.key("b.json"), b"35")
    with pytest.raises(DamagedArtifactError, match=r"file 'a\.json' is missing"):
        artifact.read_bytes("a.json")
    with pytest.raises(DamagedArtifactError, match=r"'b\.json' has other bytes than were publish"):
        artifact.read_bytes("b.json")
    problems = store.verify(artifact)
    assert len(problems) == 2
    assert "a.json" in problems[0]
    assert "b.json' has other bytes" in problems[1]
    with pytest.raises(DamagedArtifactError, match=r"'a\.json'"):
        artifact.folder()
