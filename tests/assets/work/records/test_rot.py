"""A disk that loses bits below a store or its cache: noticed by whoever reads, and put right."""

import os
import shutil
from pathlib import Path

import pytest

from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.packed_models import RestoredModel, stored_model
from assets.work.upstream.pulling import pull_model
from merge_ops.errors import CheckpointError, NonFiniteError
from resources.errors import DamagedArtifactError
from resources.places.local import LocalReader
from resources.reading.checked_file import CheckedFile
from resources.reading.digest_tree import PIECE, PieceHasher
from resources.store.artifact_store import ArtifactStore
from tests.merges.store_merges import merge_family, pull_family
from tests.models.checkpoint_factory import LLAMA, Family, write_family


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return write_family(tmp_path / "models", LLAMA)


@pytest.fixture
def near(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open((tmp_path / "store").as_uri(), cache=tmp_path / "cache")


def rot(path: Path, byte: int = -100) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 16
    path.chmod(0o644)
    path.write_bytes(data)


def weights_in(store: ArtifactStore, name: str) -> Path:
    artifact = store.resolve("model", name)
    assert artifact is not None
    folder = store.place.folder("")
    assert folder is not None
    return folder / artifact.key("model.safetensors")


def test_a_rotten_base_is_not_merged_and_a_right_one_is(near: ArtifactStore, family) -> None:
    experts = pull_family(near, family)
    right = merge_family(near, experts, "ties", "weight: 1, density: 0.5").artifact
    rot(weights_in(near, "base"))
    with pytest.raises(CheckpointError, match="has other bytes than were published"):
        merge_family(near, experts, "ties", "weight: 1, density: 0.6")
    rot(weights_in(near, "base"))  # the same bit again: put right
    assert (
        merge_family(near, experts, "ties", "weight: 1, density: 0.5").artifact.digest
        == right.digest
    )
    merge_family(near, experts, "ties", "weight: 1, density: 0.6")


def test_a_rotten_checkpoint_is_not_handed_out(near: ArtifactStore, family) -> None:
    made = merge_family(near, pull_family(near, family), "linear", "weight: 0.5").artifact
    rot(made.folder() / "model.safetensors")
    with pytest.raises(DamagedArtifactError, match=r"'model\.safetensors' has other bytes"):
        made.folder()
    with pytest.raises(DamagedArtifactError, match="has other bytes"):
        near.get(made.kind, made.digest).folder()
    rot(made.folder(checked=False) / "model.safetensors")
    assert made.folder() == made.folder(checked=False)


def packed_expert(store: ArtifactStore, family: Family) -> RestoredModel:
    base = UpstreamModel("base", str(family.base))
    pull_model(store, base, Path())
    expert = UpstreamModel("expert", str(family.experts[0]), "base", store="packed")
    pull_model(store, expert, Path(), base=base)
    model = stored_model(store, "expert")
    assert isinstance(model, RestoredModel)
    return model


def test_what_changed_in_the_cache_is_restored_again(near: ArtifactStore, family) -> None:
    model = packed_expert(near, family)
    folder = model.folder()
    right = (family.experts[0] / "model.safetensors").read_bytes()
    for change in (rot, lambda path: os.truncate(path, 10), lambda path: path.unlink()):
        path = folder / "model.safetensors"
        path.chmod(0o644)
        change(path)
        assert (model.folder() / "model.safetensors").read_bytes() == right
        path.chmod(0o644)
        change(path)
        fresh = stored_model(near, "expert")
        assert fresh is not None
        with pytest.raises(DamagedArtifactError, match="and another process uses it; end that"):
            fresh.folder()  # `model` is another user of it
        assert (model.folder() / "model.safetensors").read_bytes() == right


def test_a_file_too_many_in_the_cache_is_not_handed_out(near: ArtifactStore, family) -> None:
    """Code that somebody put there would be found by whoever loads the folder."""
    model = packed_expert(near, family)
    (model.folder() / "adapter_config.json").write_text("{}")
    assert not (model.folder() / "adapter_config.json").exists()


def test_an_artifact_of_an_older_release_is_checked_as_well(near: ArtifactStore) -> None:
    """It has no digests of pieces: the file is compared with its hash before it is read."""
    data = bytes(range(256)) * 3000
    with near.attempt("model") as attempt:
        attempt.write_bytes("model.safetensors", data)
        artifact = attempt.publish()
    artifact.manifest.pop("pieces")
    buffer = memoryview(bytearray(1000))
    with artifact.source() as source:
        source.read_into("model.safetensors", 300_000, buffer)
        assert buffer == data[300_000:301_000]
    again = near.get("model", artifact.digest)
    again.manifest.pop("pieces")
    rot(near.place.folder(again.key("model.safetensors")))  # type: ignore[arg-type]
    with (
        again.source() as source,
        pytest.raises(DamagedArtifactError, match=r"'model\.safetensors' has other bytes"),
    ):
        source.read_into("model.safetensors", 0, buffer)


def test_a_file_that_is_written_to_after_it_was_checked(tmp_path: Path) -> None:
    """A method that reads twice: the second time is as good as the first."""
    data = bytes(range(251)) * 5000
    (tmp_path / "file").write_bytes(data)
    hasher = PieceHasher()
    hasher.update(memoryview(data))
    reader = LocalReader(tmp_path, tmp_path / "file")
    file = CheckedFile(reader, "the file", len(data), PIECE, hasher.digests(), 1)
    whole = memoryview(bytearray(len(data)))
    file.read_near(0, whole)
    rot(tmp_path / "file", 5)
    with pytest.raises(DamagedArtifactError, match="the file has other bytes than were published"):
        file.read_near(0, whole)
    file.close()


def test_a_link_in_place_of_a_stored_file(near: ArtifactStore, family, tmp_path: Path) -> None:
    experts = pull_family(near, family)
    path = weights_in(near, experts[0])
    shutil.copy(path, tmp_path / "other")
    rot(tmp_path / "other")
    path.unlink()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(CheckpointError, match="has other bytes than were published"):
        merge_family(near, experts, "linear", "weight: 0.5")


def test_numbers_that_no_float_holds_publish_nothing(store: ArtifactStore, family) -> None:
    experts = pull_family(store, family)
    for method, parameters in (
        ("linear", "weight: 1.0e+308"),
        ("task_arithmetic", "weight: 1, lambda: 1.0e+300"),
        ("linear", "weight: 1.0e-320"),
    ):
        with pytest.raises(NonFiniteError, match=r"element 0 becomes .*Nothing was written"):
            merge_family(store, experts, method, parameters)
    assert store.place.walk("artifacts/checkpoint") == []
