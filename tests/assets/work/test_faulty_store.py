"""Merges on a store behind a proxy that breaks requests: right digests, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resources.errors import DamagedArtifactError, StoreError
from resources.places.s3.client import Patience, Timeouts
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.merges.store_merges import merge_family, pull_family
from tests.models import checkpoint_factory as factory
from tests.servers.faulty_proxy import KINDS, running_proxy
from tests.servers.storage_servers import S3Server

# 10 MB: an upload of two parts, and reads of several runs.
SHAPE = replace(factory.LLAMA, hidden=128, vocabulary=19_000, dtype=torch.bfloat16)
HASTY = Timeouts(connect=2.0, read=0.5, slowest=16 << 20)
HURRY = (0.6, 0.03)
SAID = {
    "error": "the server answered 503 SlowDown",
    "reset": "the connection broke off again and again",
    "timeout": "no answer from the endpoint",
    "truncated": "a body ended",
    "slow": "did not come in time",
    "wrong": r"'model\.safetensors' has other bytes than were published: the \d+ from byte \d+",
}
MERGES = [
    ("linear", "weight: 0.5"),
    ("ties", "weight: 1, density: 0.5"),
    ("task_arithmetic", "weight: 0.7"),
]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults are given up on after half a second, so that many fit into a test."""
    monkeypatch.setattr("resources.places.s3.bucket.FIRST_TIMEOUTS", HASTY)
    monkeypatch.setattr("resources.places.s3.bucket.TIMEOUTS", HASTY)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> factory.Family:
    """A base and two experts."""
    return factory.write_family(tmp_path_factory.mktemp("family"), SHAPE)


@pytest.mark.usefixtures("hasty")
def test_merges_through_faults_of_every_kind(
    s3_root: str,
    seaweedfs: S3Server,
    family: factory.Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    local = ArtifactStore.open((tmp_path / "local").as_uri())
    experts = pull_family(local, family)
    right = [merge_family(local, experts, *merge).artifact.content_digest for merge in MERGES]
    with running_proxy(seaweedfs.endpoint, share=0.05, seed=7, patience=HURRY) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = ArtifactStore.open(s3_root)
        pull_family(store, family)
        merged = [merge_family(store, experts, *merge) for merge in MERGES]
        assert [each.artifact.content_digest for each in merged] == right
        assert not any(each.memoized for each in merged)
        while {kind for kind, _ in proxy.seen} != set(KINDS):  # what the merges did not meet
            assert store.verify(merged[0].artifact) == []
    assert sum(proxy.seen.values()) > len(KINDS)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint)
    clean = ArtifactStore.open(s3_root)
    for each in merged:
        assert clean.verify(clean.get("checkpoint", each.artifact.digest)) == []


def publish(store: ArtifactStore, kind: str, data: bytes) -> Artifact:
    """An artifact of one file."""
    with store.attempt(kind) as attempt:
        attempt.write_bytes("model.safetensors", data)
        return attempt.publish("some-digest")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_does_nothing_else_is_told_of(
    s3_root: str, seaweedfs: S3Server, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind of fault in every answer: an error of ours, and nothing published."""
    data = bytes(range(256)) * 4096
    with running_proxy(seaweedfs.endpoint, share=0.0, patience=HURRY) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = ArtifactStore.open(s3_root)
        store.place.bucket.patience = Patience(tries=2, seconds=10.0, first_pause=0.01)
        artifact = publish(store, "checkpoint", data)
        artifact.piece_digests("model.safetensors")  # so that the file itself meets the fault
        proxy.always = kind
        with artifact.source() as source, pytest.raises(DamagedArtifactError, match=SAID[kind]):
            source.read_into("model.safetensors", 5, memoryview(bytearray(300_000)))
        if kind != "slow":  # answers to writes are too small to be slow
            with pytest.raises(StoreError, match="failed: "):
                publish(store, "scores", data)
        proxy.always = ""
        assert store.digests("scores") == []
        assert store.verify(artifact) == []
