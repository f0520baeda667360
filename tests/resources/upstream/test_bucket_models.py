"""Upstream models in buckets of S3: their revisions, and bytes that arrive wrong or not at all."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from resources.errors import MissingSourceError, ModelSourceError, SourceChangedError
from resources.store.artifact_store import ArtifactStore
from resources.upstream.model_sources import open_model_source
from resources.upstream.source import ModelSource
from tests.resources.upstream_models import TAKEN, opened, upload
from tests.servers.faulty_proxy import FaultyProxy, running_proxy
from tests.servers.storage_servers import S3Server


def test_a_model_in_a_bucket(s3_root: str, folder: Path, tmp_path: Path) -> None:
    upload(folder, f"{s3_root}/upstream/a")
    source = open_model_source(f"{s3_root}/upstream/a", tmp_path)
    revision = source.revision()
    store = ArtifactStore.open(f"{s3_root}/store")
    with store.attempt("checkpoint") as attempt:
        source.copy_to(attempt)
        artifact = attempt.publish()
    assert artifact.content_digest == opened(folder, tmp_path).revision()
    assert open_model_source(f"{s3_root}/upstream/a", tmp_path).revision() == revision

    (folder / "merges.txt").write_text("another text")
    upload(folder, f"{s3_root}/upstream/a")
    assert open_model_source(f"{s3_root}/upstream/a", tmp_path).revision() != revision
    with (
        store.attempt("checkpoint") as attempt,
        pytest.raises(SourceChangedError, match=r"merges\.txt changed since its revision"),
    ):
        source.copy_to(attempt)


def test_the_revision_of_a_bucket_s_model_is_that_of_earlier_releases(
    s3_root: str, folder: Path, tmp_path: Path
) -> None:
    """A refresh after an update of Ronghe must not take every model of S3 for a changed one."""
    import s3fs

    upload(folder, f"{s3_root}/a")
    files = s3fs.S3FileSystem(skip_instance_cache=True)
    lines = []
    for name in sorted(TAKEN):
        info = files.info(f"{s3_root}/a/{name}")
        lines.append([name, info["size"], info["ETag"]])
    expected = blake3(json.dumps(lines).encode()).hexdigest()
    assert open_model_source(f"{s3_root}/a", tmp_path).revision() == expected


@pytest.fixture
def behind_proxy(
    s3_root: str, seaweedfs: S3Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FaultyProxy, ModelSource]]:
    """A proxy that spoils what it is told to, and a model in a bucket behind it."""
    upload(folder, f"{s3_root}/a")
    with running_proxy(seaweedfs.endpoint, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        source = open_model_source(f"{s3_root}/a", tmp_path)
        source.revision()
        yield proxy, source


def test_a_bucket_s_bytes_that_a_network_spoils_are_refused(
    behind_proxy: tuple[FaultyProxy, ModelSource], folder: Path, tmp_path: Path
) -> None:
    proxy, source = behind_proxy
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    proxy.always = "wrong"
    with (
        store.attempt("checkpoint") as attempt,
        pytest.raises(ModelSourceError, match="arrived with other bytes than are there; check"),
    ):
        source.copy_to(attempt)
    assert list(store.place.walk("attempts")) == []


def test_a_bucket_that_answers_badly_is_asked_again(
    behind_proxy: tuple[FaultyProxy, ModelSource], folder: Path, tmp_path: Path
) -> None:
    proxy, source = behind_proxy
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    proxy.refuse(5)
    with store.attempt("checkpoint") as attempt:
        source.copy_to(attempt)
        artifact = attempt.publish()
    assert sum(proxy.seen.values()) == 5
    assert artifact.content_digest == opened(folder, tmp_path).revision()


def test_a_bucket_that_is_wrong(s3_root: str, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(MissingSourceError, match="is not there; correct it in the catalog"):
        open_model_source(f"{s3_root}/nothing", tmp_path).revision()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-hidden-secret")
    with pytest.raises(ModelSourceError, match="the server refused the credentials") as refused:
        open_model_source(f"{s3_root}/nothing", tmp_path).revision()
    assert "another-hidden-secret" not in str(refused.value)
    assert "may list and get objects" in str(refused.value)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(ModelSourceError, match="no AWS credentials were found for the model sour"):
        open_model_source(f"{s3_root}/nothing", tmp_path).revision()
