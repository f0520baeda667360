"""Parts of uploads carry a checksum that the server was seen to check: CRC32, or else MD5."""

import time
from typing import Any

import pytest

from resources.errors import StoreFailureError
from resources.places.s3.client import Patience
from resources.places.s3.place import S3Place
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.servers.faulty_proxy import running_proxy
from tests.servers.storage_servers import S3Server

MIB = 1 << 20
DATA = bytes(range(256)) * (12 * MIB // 256)  # three parts


def ignore_crc32(params: dict[str, Any], **_: Any) -> None:
    """Let the server see no CRC32, as if it knew nothing of them."""
    params["headers"].pop("x-amz-checksum-crc32", None)


def place_of(store: ArtifactStore) -> S3Place:
    """The store's place."""
    assert isinstance(store.place, S3Place)
    return store.place


def checks_of(place: S3Place) -> list[str]:
    """Which checksums each part from now on carries."""
    carried: list[str] = []

    def note(request: Any, **_: Any) -> None:
        names = ("Content-MD5", "x-amz-checksum-crc32")
        carried.append(" ".join(name for name in names if name in request.headers))

    place.bucket.connection().client.meta.events.register("before-send.s3.UploadPart", note)
    return carried


def publish(store: ArtifactStore, digest: str) -> Artifact:
    """An artifact whose file is uploaded in three parts."""
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("model.safetensors", DATA)
        return attempt.publish(digest)


def upload(place: S3Place, key: str) -> None:
    """One file as such, given up when it fails."""
    writer = place.open_writer(key, len(DATA))
    try:
        writer.write(memoryview(DATA))
        writer.commit()
    except StoreFailureError:
        writer.abandon()
        raise


@pytest.fixture(params=["x-amz-checksum-crc32", "Content-MD5"])
def checksum(request: pytest.FixtureRequest) -> str:
    """What a part has to carry; for MD5, no server of this test gets to see a CRC32."""
    return request.param


def open_store(root: str, checksum: str) -> ArtifactStore:
    """A store on a server that checks this kind of checksum."""
    store = ArtifactStore.open(root)
    if checksum == "Content-MD5":
        events = place_of(store).bucket.connection().client.meta.events
        events.register("before-call.s3.UploadPart", ignore_crc32)
    return store


def test_parts_carry_what_the_server_checks(s3_root: str, checksum: str) -> None:
    store = open_store(s3_root, checksum)
    place = place_of(store)
    carried = checks_of(place)
    assert store.verify(publish(store, "some-digest")) == []
    assert carried[-3:] == [checksum] * 3
    asked = len(carried) - 3
    assert store.verify(publish(store, "other-digest")) == []
    assert carried[asked + 3 :] == [checksum] * 3, "the server is asked once"
    assert place.walk("probe") == []
    assert place.pending("probe") == []


def test_parts_that_arrive_wrong_are_refused(
    s3_root: str, checksum: str, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_proxy(seaweedfs.endpoint, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        store = open_store(s3_root, checksum)
        place = place_of(store)
        carried = checks_of(place)
        publish(store, "some-digest")
        place.bucket.patience = Patience(tries=2, seconds=10.0, first_pause=0.01)
        proxy.always = "wrong"
        with pytest.raises(StoreFailureError, match="400 BadDigest"):
            upload(place, "attempts/0123/model.safetensors")
        proxy.always = ""
        assert carried[-1] == checksum
        assert "attempts/0123/model.safetensors" not in [e.key for e in place.walk("attempts")]


def test_an_upload_that_was_cut_off_is_completed(s3_root: str, checksum: str) -> None:
    store = open_store(s3_root, checksum)
    place = place_of(store)
    carried = checks_of(place)
    key = "attempts/0123/model.safetensors"
    writer = place.open_writer(key, len(DATA))
    writer.write(memoryview(DATA)[: 11 * MIB])
    while sum(entry.size for entry in place.pending("attempts")) < 10 * MIB:
        time.sleep(0.01)  # two parts are on their way
    assert carried[-2:] == [checksum] * 2
    place.salvage(key)
    found = place.read(key)
    assert found is not None
    assert found[0] == DATA[: 10 * MIB]
    assert place.pending("attempts") == []


def test_a_probe_that_was_cut_off_is_swept(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ArtifactStore.open(s3_root)
    place = place_of(store)
    place.bucket.connection().client.create_multipart_upload(**place.bucket.names("probe/0123"))
    assert store.gc(grace_seconds=0).garbage == (), "it may be under way"
    monkeypatch.setattr("resources.store.attempts.gc.MOMENT", 0.0)
    (garbage,) = store.gc(grace_seconds=0).garbage
    assert garbage.pending == ("probe/0123",)
    assert place.pending("probe") == []
