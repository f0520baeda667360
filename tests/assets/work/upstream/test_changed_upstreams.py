"""What becomes of a model when its upstream vanishes, moves a tag, spoils bytes or is too large."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.packed_models import MODEL
from assets.work.upstream.pulling import kept_note, open_models, pull_model, revisions
from resources.errors import ModelSourceError
from resources.store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.resources.hub_server import Hub, running_hub_of

SHAPE = factory.Shape("qwen2", layers=1, hidden=32, intermediate=48, tied=True)
NAME = "team/model"
WEIGHTS = "model.safetensors"
SPOILT = set[str]()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model as it was uploaded, with the tag v1."""
    return factory.write_checkpoint(tmp_path / "up", factory.base_tensors(SHAPE), SHAPE)


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # Its client has read the variable when it was imported, perhaps for another test.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    SPOILT.clear()
    with running_hub_of({NAME: {"main": folder, "v1": folder}}, spoilt=SPOILT) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open((tmp_path / "store").as_uri(), catalog="team")


def model(**more: object) -> UpstreamModel:
    return UpstreamModel(**{"name": "m", "source": f"hf://{NAME}@v1", **more})  # type: ignore[arg-type]


def test_a_vanished_upstream_keeps_what_we_have_and_says_so(
    hub: Hub, store: ArtifactStore, tmp_path: Path
) -> None:
    pulled = pull_model(store, model(), tmp_path)
    commit = hub.commits[NAME].pop("v1")
    reached, faults = revisions([model()], tmp_path)
    assert reached == {}
    assert "hf://team/model@v1 is not on the Hub, or is private" in faults["m"]
    note = kept_note(store, "m")
    assert note == (
        f"; the store keeps what was pulled of it before (hf://{NAME}@{commit}), and merges go on"
        " with that"
    )
    assert kept_note(store, "never pulled") == ""
    assert open_models(store, "m", [])["m"].tensors
    ref = store.ref(MODEL, "m")
    assert ref is not None
    assert ref.digest == pulled.artifact.digest


def test_a_moved_tag_is_an_update(
    hub: Hub, store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    first = pull_model(store, model(), tmp_path)
    assert pull_model(store, model(), tmp_path).memoized
    before, _ = revisions([model()], tmp_path)
    factory.write_weights(folder, factory.expert_tensors(factory.base_tensors(SHAPE), seed=9))
    hub.commits[NAME]["v1"] = "f" * 40
    after, _ = revisions([model()], tmp_path)
    assert before != after
    moved = pull_model(store, model(), tmp_path)
    assert not moved.memoized
    assert moved.artifact.digest != first.artifact.digest
    ref = store.ref(MODEL, "m")
    assert ref is not None
    assert [each.fields["revision"] for each in ref.history] == [before["m"], "f" * 40]


def test_wrong_bytes_are_refused_and_only_they_are_fetched_again(
    hub: Hub, store: ArtifactStore, tmp_path: Path
) -> None:
    """So goes an interrupted pull on too: what is whole and right stays in the cache."""
    SPOILT.add(WEIGHTS)
    with pytest.raises(
        ModelSourceError, match=rf"{WEIGHTS} arrived with other bytes than are there"
    ):
        pull_model(store, model(), tmp_path)
    assert store.ref(MODEL, "m") is None
    SPOILT.clear()
    assert pull_model(store, model(), tmp_path).tensors
    counts = {file: hub.downloads().count(file) for file in hub.downloads()}
    assert counts.pop(WEIGHTS) == 2
    assert set(counts.values()) == {1}


def test_a_download_that_is_too_large_is_refused_before_it_begins(
    hub: Hub, store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ModelSourceError, match=r"models.yaml allows 1,000 \(max_size\); nothing was"
    ):
        pull_model(store, model(max_size=1000), tmp_path)
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(ModelSourceError, match="has 10 free; free space, or set HF_HOME"):
        pull_model(store, model(), tmp_path)
    assert hub.downloads() == []
