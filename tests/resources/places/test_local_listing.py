"""A part of a store that cannot be listed is an error; who takes it for empty would lose things."""

import os
from pathlib import Path

import pytest

from resources.errors import StoreAccessError, StoreAddressError, StoreError, StoreFailureError
from resources.store.artifact_store import ArtifactStore
from tests.servers.privileges import permissions_count


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store of one checkpoint."""
    made = ArtifactStore.open((tmp_path / "store").as_uri())
    with made.attempt("checkpoint") as attempt:
        attempt.write_bytes("model.safetensors", b"weights")
        attempt.publish("some-digest")
    return made


def test_a_folder_without_permission_is_not_empty(store: ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "artifacts" / "checkpoint"
    folder.chmod(0)
    try:
        with permissions_count(), pytest.raises(StoreAccessError, match="listing artifacts failed"):
            store.upkeep.manifests()
    finally:
        folder.chmod(0o755)
    assert store.upkeep.manifests() == [("checkpoint", "some-digest")]


def test_what_was_moved_to_another_disk_is_seen_and_kept(
    store: ArtifactStore, tmp_path: Path
) -> None:
    """gc must see the manifests behind a link: it removes the attempts that none names."""
    folder = tmp_path / "store" / "artifacts" / "checkpoint"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "store" / "artifacts")
    assert store.upkeep.manifests() == [("checkpoint", "some-digest")]
    assert store.gc(grace_seconds=0.0).garbage == ()
    assert store.verify(store.get("checkpoint", "some-digest")) == []

    (tmp_path / "elsewhere").rename(tmp_path / "unmounted")
    for look in (store.upkeep.manifests, lambda: store.gc(grace_seconds=0.0)):
        with pytest.raises(StoreFailureError, match=r"checkpoint is a link to .*mount its disk"):
            look()
    (tmp_path / "unmounted").rename(tmp_path / "elsewhere")
    assert store.verify(store.get("checkpoint", "some-digest")) == []


def test_a_part_that_is_a_dead_link_is_not_empty(store: ArtifactStore, tmp_path: Path) -> None:
    folder = tmp_path / "store" / "artifacts"
    folder.rename(tmp_path / "gone")
    folder.symlink_to(tmp_path / "nowhere")
    for look in (store.upkeep.manifests, store.kinds, lambda: store.digests("checkpoint")):
        with pytest.raises(StoreError, match="which is not there"):
            look()


@pytest.mark.parametrize("made", ["link", "file", "link above"])
def test_a_root_that_can_be_none_is_told_by_readers_and_writers(tmp_path: Path, made: str) -> None:
    root = tmp_path / "store"
    if made == "file":
        root.write_bytes(b"")
    else:
        root.symlink_to(tmp_path / "unmounted")
    if made == "link above":
        root = root / "team"
    store = ArtifactStore.open(root.as_uri())
    problem = "is no folder" if made == "file" else "is a link to .*unmounted"
    for use in (store.upkeep.require, lambda: store.upkeep.require(may_be_new=True)):
        with pytest.raises(StoreAddressError, match=rf"{problem}.*RONGHE_STORE"):
            use()
    with pytest.raises(StoreAddressError, match=problem):
        store.attempt("checkpoint")
    with pytest.raises(StoreAddressError, match=problem):
        store.gc()
    assert os.listdir(tmp_path) == ["store"]


def test_a_store_where_nothing_was_kept_may_be_new_and_is_none(tmp_path: Path) -> None:
    for root in (tmp_path / "store", tmp_path):
        store = ArtifactStore.open(root.as_uri())
        store.upkeep.require(may_be_new=True)
        with pytest.raises(StoreAddressError, match="nothing was ever kept there"):
            store.upkeep.require()
        assert store.gc().garbage == ()
        assert os.listdir(tmp_path) == []


def test_a_store_that_lost_its_id_is_one(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "store" / "store.json").unlink()
    store.upkeep.require()
