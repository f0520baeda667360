"""Upstream models of the Hugging Face Hub: pinned to a commit, offline, and gone on with."""

import random
from pathlib import Path

import pytest

from resources.errors import MissingSourceError
from resources.store.artifact_store import ArtifactStore
from resources.upstream.hub_source import HubModel
from tests.resources.hub_server import COMMIT, running_hub, running_hub_of
from tests.resources.processes import line, program
from tests.resources.upstream_models import TAKEN, write_model
from tests.servers.waiting import wait_until


def test_the_hub_offline(tmp_path: Path) -> None:
    """With HF_HUB_OFFLINE a model that was downloaded before is used at the commit it has."""
    made = tmp_path / "hub" / "models--owner--name"
    write_model(made / "snapshots" / COMMIT)
    (made / "refs").mkdir()
    (made / "refs" / "main").write_text(COMMIT)
    for revision in ("", "@main", f"@{COMMIT}"):
        source = HubModel(f"owner/name{revision}", cache=tmp_path / "hub")
        assert source.revision() == COMMIT
        store = ArtifactStore.open((tmp_path / "store").as_uri())
        with store.attempt("checkpoint") as attempt:
            source.copy_to(attempt)
            assert set(attempt.publish().files) == TAKEN
    with pytest.raises(MissingSourceError, match=r"hf://owner/other is not in the local cache"):
        HubModel("owner/other", cache=tmp_path / "hub").revision()


def test_the_hub_at_a_commit(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    store_uri = (tmp_path / "store").as_uri()
    with running_hub(folder, "owner/name") as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with program("copy_from_hub", "hf://owner/name@main", store_uri) as process:
            assert line(process) == COMMIT
            assert set(line(process).split()) == TAKEN
        with program("copy_from_hub", "hf://owner/absent", store_uri) as process:
            assert "MissingSourceError: model source hf://owner/absent is not on the Hub" in line(
                process
            )
    with program("copy_from_hub", "hf://owner/name", store_uri) as process:
        assert "hf://owner/name cannot be read (ConnectError); check the network" in line(process)


def test_a_download_that_stays_a_part_is_refused(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """The Hub's client gives what it has where the Hub is too slow to list the rest."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    part = tmp_path / "home" / "hub" / "models--owner--name" / "snapshots" / COMMIT
    part.mkdir(parents=True)
    (part / "model.safetensors").write_bytes(b"whole")
    with running_hub(folder, "owner/name", lists=False) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with program("copy_from_hub", "hf://owner/name", (tmp_path / "store").as_uri()) as process:
            assert line(process) == COMMIT
            said = line(process)
    assert "ModelSourceError: model source hf://owner/name is downloaded in part" in said


def test_a_pull_that_was_killed_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that came are not asked for again, however the process ended."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    cache, weights = tmp_path / "home" / "hub", random.Random(0).randbytes(3 << 20)
    write_model(tmp_path / "uploaded")
    (tmp_path / "uploaded" / "model.safetensors").write_bytes(weights)
    blobs = cache / "models--owner--name" / "blobs"
    with running_hub_of({"owner/name": tmp_path / "uploaded"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.held_at = 5 << 19
        store = (tmp_path / "store").as_uri()
        with program("copy_from_hub", "hf://owner/name", store) as process:
            wait_until(
                lambda: sum(e.stat().st_size for e in blobs.glob("*.unfinished")) == 2 << 20,
                "two of three parts",
            )
            process.kill()
        hub.go_on.set()
        hub.held_at = None
        told: list[tuple[int, int]] = []
        folder = HubModel("owner/name", cache=cache).fetch(lambda *done: told.append(done))
    assert (folder / "model.safetensors").read_bytes() == weights
    asked = [part for _, path, part in hub.requests if path.endswith("model.safetensors")]
    assert [part for part in asked if part] == [f"bytes={2 << 20}-"]
    assert told[0] == (2 << 20, 3 << 20)
    assert told[-1] == (3 << 20, 3 << 20)
    assert not list(blobs.glob("*.unfinished"))
