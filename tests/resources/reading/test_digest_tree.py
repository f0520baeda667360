"""Every range of a published artifact is checked against what was published, piece by piece."""

import json
import threading
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from resources.errors import ArtifactReadError, DamagedArtifactError
from resources.places.local import LocalPlace, LocalReader
from resources.reading.checked_file import CheckedFile
from resources.reading.digest_tree import PIECE, TREE, PieceHasher, cut_tree, join_tree
from resources.reading.read_ahead import ReadAhead
from resources.store.artifact import Artifact, FileRecord, content_digest
from resources.store.artifact_store import ArtifactStore

DATA = b"".join(number.to_bytes(4, "big") for number in range(3 * PIECE // 4 + 25))  # 3 and a bit


def publish(store: ArtifactStore) -> Artifact:
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("a.safetensors", DATA)
        attempt.write_bytes("b.safetensors", DATA[: 2 * PIECE])
        attempt.write_bytes("config.json", b"{}")
        return attempt.publish("some-digest")


def damage(store: ArtifactStore, key: str, at: int) -> None:
    found = store.place.read(key)
    assert found is not None
    data = bytearray(found[0])
    data[at] ^= 1
    store.place.put(key, bytes(data))


@given(st.lists(st.integers(1, 2 * PIECE), max_size=4), st.integers(0, len(DATA)))
def test_pieces_do_not_depend_on_how_the_bytes_come(cuts: list[int], size: int) -> None:
    data, hasher, at = memoryview(DATA)[:size], PieceHasher(), 0
    for cut in (*cuts, size):
        hasher.update(data[at : at + cut])
        at += cut
    wanted = [blake3(data[start : start + PIECE]).digest() for start in range(0, size, PIECE)]
    assert hasher.digests() == b"".join(wanted)


def test_a_tree_is_cut_as_it_was_joined() -> None:
    digests = {"b": b"1" * 64, "a": b"2" * 96, "small": b"3" * 32}
    sizes = {"b": PIECE + 1, "a": 3 * PIECE, "small": 5, "empty": 0}
    tree = join_tree(digests)
    assert cut_tree(tree, sizes, PIECE) == {"a": b"2" * 96, "b": b"1" * 64}
    assert cut_tree(tree[:-1], sizes, PIECE) == {}


def test_a_wrong_piece_is_told_of_and_no_other(store: ArtifactStore) -> None:
    artifact = publish(store)
    damage(store, artifact.key("a.safetensors"), PIECE + 7)
    buffer = memoryview(bytearray(10))
    for offset in (0, PIECE - 10, 2 * PIECE, len(DATA) - 10):
        with artifact.source() as source:
            source.read_into("a.safetensors", offset, buffer)
            assert buffer == DATA[offset : offset + 10]
    said = rf"'a\.safetensors' has other bytes than were published: the {PIECE} from byte {PIECE} "
    for offset, length in ((PIECE - 1, 2), (0, len(DATA))):
        with (
            artifact.source() as source,
            pytest.raises(DamagedArtifactError, match=said),
        ):
            source.read_into("a.safetensors", offset, memoryview(bytearray(length)))
    (problem,) = store.verify(artifact)
    assert f"from byte {PIECE}" in problem


def test_a_tree_that_is_not_the_one_published(store: ArtifactStore) -> None:
    artifact = publish(store)
    key = f"attempts/{artifact.manifest['attempt']}/{TREE}"
    damage(store, key, 3)
    buffer = memoryview(bytearray(10))
    with artifact.source() as source:
        with pytest.raises(
            ArtifactReadError, match=r"digests of its pieces .* are not those publi"
        ):
            source.read_into("a.safetensors", 0, buffer)
        source.read_into("config.json", 0, buffer[:2])
    store.place.delete([key])
    with (
        artifact.source() as source,
        pytest.raises(ArtifactReadError, match="are missing or"),
    ):
        source.read_into("a.safetensors", 0, buffer)


def test_artifacts_of_older_releases_open(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    manifest = publish(store).manifest
    path = tmp_path / "artifacts/checkpoint/some-digest/manifest.json"
    pieces = manifest.pop("pieces")
    path.write_text(json.dumps(manifest))
    older = store.get("checkpoint", "some-digest")
    assert store.verify(older) == []
    whole = bytearray(len(DATA))
    with older.source() as source:
        source.read_into("a.safetensors", 0, memoryview(whole))
    assert whole == DATA
    damage(store, older.key("a.safetensors"), 7)
    assert len(store.verify(older)) == 1
    for broken in ({**pieces, "bytes": 0}, {**pieces, "blake3": 5}, []):
        path.write_text(json.dumps({**manifest, "pieces": broken}))
        with pytest.raises(DamagedArtifactError, match="has no proper"):
            store.get("checkpoint", "some-digest")


class CountingReader(LocalReader):
    """A file that notes what was asked of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, path)
        self.asked: list[tuple[int, int]] = []

    def read_into(self, offset: int, buffer: memoryview, ahead: int = 0) -> int:
        """Read, and note it."""
        self.asked.append((offset, len(buffer)))
        return super().read_into(offset, buffer)


def test_a_size_that_no_file_has_ends_at_the_end_of_the_file(tmp_path: Path) -> None:
    """A manifest may claim a petabyte: an older one, of a file whose pieces have no digests."""
    store = ArtifactStore.open(tmp_path.as_uri())
    manifest = publish(store).manifest
    del manifest["pieces"]
    for each in manifest["files"]:
        each["size"] = 1 << 50 if each["path"] == "a.safetensors" else each["size"]
    records = [FileRecord(each["path"], each["size"], each["blake3"]) for each in manifest["files"]]
    manifest["content_digest"] = content_digest(records)
    path = tmp_path / "artifacts/checkpoint/some-digest/manifest.json"
    path.write_text(json.dumps(manifest))
    with (
        store.get("checkpoint", "some-digest").source() as source,
        pytest.raises(ArtifactReadError, match="other bytes than were published"),
    ):
        source.read_into("a.safetensors", 0, memoryview(bytearray(10)))


def test_neighbouring_blocks_fetch_no_piece_twice(tmp_path: Path) -> None:
    data = bytes(range(251)) * 50_000  # 12.5 MB
    place = LocalPlace(tmp_path)
    place.put("file", data)
    hasher = PieceHasher()
    hasher.update(memoryview(data))
    reader = CountingReader(tmp_path / "file")
    file = CheckedFile(reader, "file", len(data), PIECE, hasher.digests(), 1)
    ahead, block, wrong = ReadAhead(), 700_001, list[int]()
    offsets = iter(range(99, len(data), block))
    taking = threading.Lock()

    def work() -> None:
        buffer = memoryview(bytearray(block))
        while True:
            with taking:
                offset = next(offsets, None)
            if offset is None:
                return
            view = buffer[: min(block, len(data) - offset)]
            ahead.read(file, offset, view)
            if view != data[offset : offset + len(view)]:
                wrong.append(offset)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ahead.forget(file)
    reader.close()
    assert wrong == []
    assert sum(length for _, length in reader.asked) == len(data)
    assert ahead.kept_bytes == 0, "what was read is not kept"


def test_the_budget_holds_with_many_files(tmp_path: Path) -> None:
    data = bytes(range(251)) * 20_000  # 5 MB
    hasher = PieceHasher()
    hasher.update(memoryview(data))
    (tmp_path / "file").write_bytes(data)
    ahead, buffer = ReadAhead(budget=2 << 20), memoryview(bytearray(600_000))
    readers = [CountingReader(tmp_path / "file") for _ in range(12)]
    files = [
        CheckedFile(reader, "file", len(data), PIECE, hasher.digests(), 1) for reader in readers
    ]
    for offset in range(0, len(data) - len(buffer), len(buffer)):
        for file in files:
            ahead.read(file, offset, buffer)
            assert buffer == data[offset : offset + len(buffer)]
            assert ahead.kept_bytes <= 2 << 20
    assert ahead.kept_bytes > 0
    assert ahead.kept_bytes % PIECE == 0
    for file, reader in zip(files, readers, strict=True):
        ahead.forget(file)
        reader.close()
    assert ahead.kept_bytes == 0
