"""Bytes by (file, offset), and folders for programs that need local files."""

import contextlib
import threading
from pathlib import Path

import pytest

from resources.errors import ArtifactReadError, DamagedArtifactError
from resources.reading.digest_tree import TREE
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.resources.processes import line, worker

DATA = bytes(range(256)) * 40_000  # 10 MB: more than one part of an upload, one piece of a pull


def publish(store: ArtifactStore, digest: str, data: bytes = DATA) -> Artifact:
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("model.safetensors", data)
        attempt.write_bytes("configs/config.json", digest.encode())
        attempt.write_bytes("empty.txt", b"")
        return attempt.publish(digest)


def test_ranges_are_read_exactly(store: ArtifactStore) -> None:
    artifact = publish(store, "some-digest")
    with artifact.source() as source:
        assert source.location == artifact.uri
        assert source.sizes() == {
            "model.safetensors": len(DATA), "configs/config.json": 11, "empty.txt": 0
        }  # fmt: skip
        for offset, length in ((0, 1), (0, 8), (255, 70_000), (len(DATA) - 3, 3), (5, 0)):
            buffer = bytearray(length)
            source.read_into("model.safetensors", offset, memoryview(buffer))
            assert buffer == DATA[offset : offset + length]
        whole = bytearray(len(DATA))
        source.read_into("model.safetensors", 0, memoryview(whole))
        assert whole == DATA


def test_many_threads_read_one_source(store: ArtifactStore) -> None:
    artifact = publish(store, "some-digest")
    wrong: list[int] = []

    def read(start: int) -> None:
        buffer = bytearray(1000)
        for offset in range(start, len(DATA) - 1000, 997_001):
            source.read_into("model.safetensors", offset, memoryview(buffer))
            if buffer != DATA[offset : offset + 1000]:
                wrong.append(offset)

    with artifact.source() as source:
        threads = [threading.Thread(target=read, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_range_that_is_not_there_is_an_error(store: ArtifactStore) -> None:
    artifact = publish(store, "some-digest")
    buffer = memoryview(bytearray(10))
    with artifact.source() as source:
        with pytest.raises(OSError, match=r"some-digest: file 'model\.safetensors', bytes .*has"):
            source.read_into("model.safetensors", len(DATA) - 9, buffer)
        with pytest.raises(ArtifactReadError, match=r"bytes -1 to 9: the file has"):
            source.read_into("model.safetensors", -1, buffer)
        with pytest.raises(ArtifactReadError, match=r"has no file 'x\.json'"):
            source.read_into("x.json", 0, buffer)


def test_a_file_that_lost_bytes_is_an_error(store: ArtifactStore) -> None:
    artifact = publish(store, "some-digest")
    key = artifact.key("model.safetensors")
    store.place.delete([key])
    buffer = memoryview(bytearray(10))
    with artifact.source() as source, pytest.raises(ArtifactReadError, match=r"bytes 0 to 10"):
        source.read_into("model.safetensors", 0, buffer)
    store.place.put(key, b"short")
    with artifact.source() as source:
        with pytest.raises(ArtifactReadError, match=r"bytes 0 to 10: only 5 of 10 bytes are there"):
            source.read_into("model.safetensors", 0, buffer)
        with pytest.raises(ArtifactReadError, match=r"bytes 5 to 15"):
            source.read_into("model.safetensors", 5, buffer)


def test_a_folder_holds_the_files(store: ArtifactStore, tmp_path: Path) -> None:
    artifact = publish(store, "some-digest")
    progress: list[tuple[int, int]] = []
    folder = artifact.folder(progress=lambda done, total: progress.append((done, total)))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files - {TREE} == set(artifact.files)
    assert (folder / "model.safetensors").read_bytes() == DATA
    assert (folder / "configs/config.json").read_bytes() == b"some-digest"
    if store.uri.startswith("s3:"):
        assert folder == tmp_path / "cache" / "folders" / artifact.content_digest
        assert progress[-1] == (artifact.nbytes, artifact.nbytes)
    else:
        assert folder.parent.name == "attempts"


def test_a_folder_is_pulled_once(s3_root: str, tmp_path: Path) -> None:
    store = ArtifactStore.open(s3_root, cache=tmp_path / "cache")
    folder = publish(store, "some-digest").folder()
    publish(store, "same-content-again")
    store.place.delete([publish(store, "some-digest").key("model.safetensors")])
    assert store.get("checkpoint", "some-digest").folder() == folder
    other = tmp_path / "other"
    with pytest.raises(ArtifactReadError, match=r"file 'model\.safetensors'"):
        store.get("checkpoint", "some-digest").folder(cache=other)
    assert list((other / "folders").iterdir()) == list((other / "pulling").iterdir()) == []


def test_wrong_bytes_do_not_reach_the_cache(s3_root: str, tmp_path: Path) -> None:
    store = ArtifactStore.open(s3_root, cache=tmp_path / "cache")
    artifact = publish(store, "some-digest")
    store.place.put(artifact.key("model.safetensors"), b"x" + DATA[1:])
    with pytest.raises(DamagedArtifactError, match="has other bytes than were published: the"):
        artifact.folder()
    assert list((tmp_path / "cache" / "folders").iterdir()) == []


def test_the_cache_stays_near_its_bound(s3_root: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    store = ArtifactStore.open(s3_root, cache=cache, cache_bytes=350_000)
    for number in range(5):
        publish(store, f"digest-{number}", number.to_bytes(1, "big") * 100_000)

    def here() -> set[int]:
        return {
            (folder / "model.safetensors").read_bytes()[0] for folder in cache.glob("folders/*")
        }

    in_use = store.get("checkpoint", "digest-0")
    in_use.folder()
    for number in (1, 2):
        store.get("checkpoint", f"digest-{number}").folder()
    assert here() == {0, 1, 2}
    store.get("checkpoint", "digest-1").folder()
    store.get("checkpoint", "digest-3").folder()
    assert here() == {0, 1, 3}, "2 was asked for longest ago, but for 0, which is in use"
    del in_use
    store.get("checkpoint", "digest-4").folder()
    assert here() == {1, 3, 4}
    assert list((cache / "dropping").iterdir()) == []


def test_two_processes_pull_at_once(s3_root: str, tmp_path: Path) -> None:
    artifact = publish(ArtifactStore.open(s3_root), "shared-digest")
    cache, go = tmp_path / "cache", tmp_path / "go"
    (cache / "pulling" / artifact.content_digest).mkdir(parents=True)  # left by a killed process
    (cache / "pulling" / artifact.content_digest / "model.safetensors").write_bytes(b"half")
    with contextlib.ExitStack() as stack:
        pullers = [
            stack.enter_context(worker("pull", s3_root, str(cache), str(go))) for _ in range(2)
        ]
        assert [line(puller) for puller in pullers] == ["ready"] * 2
        go.touch()
        folders = {line(puller) for puller in pullers}
    (folder,) = folders
    assert (Path(folder) / "model.safetensors").read_bytes() == DATA
    assert list((cache / "pulling").iterdir()) == []
