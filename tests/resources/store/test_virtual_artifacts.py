"""Virtual artifacts on every root: found by their digest, replaced once by what is written."""

import json

import pytest

from resources.errors import (
    AttemptError,
    ContentConflictError,
    DamagedArtifactError,
    SecretFoundError,
    VirtualArtifactError,
)
from resources.store import Artifact, ArtifactStore
from resources.store.artifact import parse_manifest

DIGEST = "ab" * 32
KEY = f"artifacts/checkpoint/{DIGEST}/manifest.json"


def write(store: ArtifactStore, data: bytes) -> Artifact:
    with store.attempt("checkpoint", DIGEST) as attempt:
        attempt.write_bytes("model.safetensors", data)
        return attempt.publish(DIGEST, plan={"method": "linear"})


def test_it_is_found_pointed_to_and_written_once(store: ArtifactStore) -> None:
    planned = store.publish_virtual("checkpoint", DIGEST, making={"recipe": {}})
    assert planned.virtual
    assert (planned.nbytes, planned.files, planned.manifest["making"]) == (0, {}, {"recipe": {}})
    again = store.publish_virtual("checkpoint", DIGEST, making={"recipe": {"other": 1}})
    assert again.manifest == planned.manifest
    store.point("r/merged_checkpoint", "p", "checkpoint", DIGEST)
    for read in (planned.source, planned.folder, lambda: planned.read_bytes("a")):
        with pytest.raises(VirtualArtifactError, match=rf"`ronghe materialize {DIGEST[:12]}`"):
            read()
    assert store.verify(planned) == []
    assert store.gc(grace_seconds=0).garbage == ()

    written = write(store, b"bytes")
    assert not written.virtual
    found = store.resolve("r/merged_checkpoint", "p")
    assert found is not None
    assert found.read_bytes("model.safetensors") == b"bytes"
    assert not store.publish_virtual("checkpoint", DIGEST).virtual  # never back
    assert write(store, b"bytes").manifest == written.manifest
    with pytest.raises(ContentConflictError, match="is published already with other contents"):
        write(store, b"other")
    assert store.gc(grace_seconds=0).garbage == ()
    assert store.verify(store.get("checkpoint", DIGEST)) == []


def test_of_two_writers_one_replaces_it_and_the_other_takes_that(store: ArtifactStore) -> None:
    store.publish_virtual("checkpoint", DIGEST)
    with store.attempt("checkpoint", DIGEST) as slow:
        slow.write_bytes("model.safetensors", b"bytes")
        first = write(store, b"bytes")
        assert slow.publish(DIGEST).manifest == first.manifest
    assert store.get("checkpoint", DIGEST).manifest["attempt"] == first.manifest["attempt"]
    assert store.verify(store.get("checkpoint", DIGEST)) == []


def test_what_a_manifest_may_hold(store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttemptError, match="sets files itself; choose other field names"):
        store.publish_virtual("checkpoint", DIGEST, files=[])
    with pytest.raises(AttemptError, match="can hold only JSON values"):
        store.publish_virtual("checkpoint", DIGEST, making={"x": float("nan")})
    with store.attempt("model") as one:
        one.write_bytes("a", b"1")
        with pytest.raises(AttemptError, match="sets virtual itself"):
            one.publish(virtual=True)
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdefghij")
    with pytest.raises(SecretFoundError):
        store.publish_virtual("checkpoint", DIGEST, making={"x": "hf_0123456789abcdefghij"})
    assert store.find("checkpoint", DIGEST) is None


def test_a_virtual_manifest_with_files_is_damaged(store: ArtifactStore) -> None:
    written = dict(write(store, b"bytes").manifest)
    text = json.dumps({**written, "virtual": True}).encode()
    with pytest.raises(DamagedArtifactError, match="is virtual, and lists files all the same"):
        parse_manifest(text, KEY)
