"""What goes wrong with the place underneath is said clearly, in bounded time, without secrets."""

import json
import math
import os
import pickle
import socket
import traceback
from pathlib import Path
from typing import ClassVar

import pytest

from resources.errors import (
    ResourceError,
    StoreAccessError,
    StoreAddressError,
    StoreFailureError,
    StoreUnreachableError,
)
from resources.places.s3.bucket import FIRST_PATIENCE
from resources.places.s3.client import Patience, Timeouts
from resources.store.artifact_store import ArtifactStore
from tests.servers.storage_servers import S3Server, free_ports


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("/tmp/store", "with no scheme is not supported; allowed are file:///absolute/folder"),
        ("gs://bucket/x", "with gs:// is not supported"),
        ("file://relative/x", "is not absolute; allowed are"),
        ("s3://", "names no bucket"),
        ("s3://bucket/a/../b", "names no bucket"),
        ("s3://key:hidden-secret@bucket/x", "leave credentials to the environment"),
        ("s3://bucket/x?secret=hidden-secret", "leave credentials to the environment"),
        ("https://me:hidden-secret@host/x", "with https:// is not supported"),
    ],
)
def test_addresses_are_checked(uri: str, said: str) -> None:
    with pytest.raises(StoreAddressError, match=said) as refused:
        ArtifactStore.open(uri)
    assert "hidden-secret" not in str(refused.value)


def test_wrong_credentials(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-hidden-secret")
    store = ArtifactStore.open(s3_root)
    with pytest.raises(StoreAccessError, match=r"refused the credentials \(Sign.*\); check") as no:
        store.attempt("scores")
    said = "".join(traceback.format_exception(no.value))
    assert "another-hidden-secret" not in said
    assert "another-hidden-secret" not in repr(store) + repr(vars(store.place))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreAccessError, match="refused the credentials"):
        ArtifactStore.open(s3_root).find("scores", "some-digest")


def test_no_credentials(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreAccessError, match="no AWS credentials were found"):
        ArtifactStore.open(s3_root).refs("model")


def test_credentials_from_a_profile_and_from_a_program_that_renews_them(
    s3_root: str, seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    keys = (seaweedfs.access_key, seaweedfs.secret_key)
    (tmp_path / "profile").write_text(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n".format(*keys)
    )
    answer = {"Version": 1, "AccessKeyId": keys[0], "SecretAccessKey": keys[1]}
    (tmp_path / "answer.json").write_text(json.dumps({**answer, "Expiration": "2999-01-01T00:00Z"}))
    (tmp_path / "program").write_text(
        f"[default]\ncredential_process = cat {tmp_path / 'answer.json'}\n"
    )
    for variable, name in (
        ("AWS_SHARED_CREDENTIALS_FILE", "profile"),
        ("AWS_CONFIG_FILE", "program"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, str(tmp_path / name))
            store = ArtifactStore.open(s3_root)
            store.probe()
            assert keys[1] in store.place.secrets()
            assert keys[1] not in repr(vars(store.place))


def test_a_missing_bucket(s3_root: str) -> None:
    with pytest.raises(StoreAddressError, match="there is no bucket 'no-such-bucket'; make it"):
        ArtifactStore.open("s3://no-such-bucket/x").find("scores", "some-digest")


class Impatience(Patience):
    """Waits for nothing, and notes how long it would have waited at most."""

    waits: ClassVar[list[float]] = []

    def pause(self, number: int) -> float:
        self.waits.append(min(self.longest_pause, self.first_pause * 2.0**number))
        return 0.0


def test_nobody_at_the_endpoint(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried a few times, with pauses of a few seconds together, and said."""
    monkeypatch.setattr(Impatience, "waits", [])
    patience = Impatience(tries=FIRST_PATIENCE.tries, seconds=math.inf)
    monkeypatch.setattr("resources.places.s3.bucket.FIRST_PATIENCE", patience)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:hidden@127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(StoreUnreachableError, match=r"no answer at http://127\.0\.0\.1:\d+") as no:
        ArtifactStore.open(s3_root).find("scores", "some-digest")
    assert len(Impatience.waits) == FIRST_PATIENCE.tries
    assert sum(Impatience.waits[:-1]) < 5
    assert "hidden" not in str(no.value)


def test_an_endpoint_that_never_answers(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 3
    for name, value in (
        ("TIMEOUTS", Timeouts(connect=0.3, read=0.3)),
        ("PATIENCE", Patience(tries=tries, seconds=math.inf, first_pause=0.01)),
    ):
        monkeypatch.setattr(f"resources.places.s3.bucket.FIRST_{name}", value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StoreUnreachableError, match="no answer at"):
            ArtifactStore.open(s3_root).find("scores", "some-digest")
        silent.setblocking(False)
        for _ in range(tries):
            silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_root_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = ArtifactStore.open((tmp_path / "file" / "store").as_uri())
    with pytest.raises(
        StoreAddressError, match=r"artifact store file://.*/file is no folder; mount"
    ):
        store.attempt("scores")


def test_a_full_disk(tmp_path: Path) -> None:
    """/dev/full is a device where every write finds the disk full."""
    store = ArtifactStore.open(tmp_path.as_uri())

    def write() -> None:
        with (
            open("/dev/full", "wb") as full,
            store.attempt("checkpoint") as attempt,
            attempt.open("model.safetensors", 1 << 20) as writer,
        ):
            os.dup2(full.fileno(), writer._writer._file.fileno())
            writer.write(bytes(1 << 20))

    with pytest.raises(StoreFailureError, match="the disk or quota is full; free some space"):
        write()
    assert list((tmp_path / "attempts").iterdir()) == []


def test_a_store_travels_to_another_process(store: ArtifactStore) -> None:
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        digest = attempt.publish().digest
    assert repr(store) == f"ArtifactStore({store.uri!r})"
    data = pickle.dumps(store)
    assert all(secret.encode() not in data for secret in store.place.secrets())
    assert pickle.loads(data).get("scores", digest).nbytes == 2


def test_every_error_is_one_of_ours() -> None:
    import resources.errors as errors

    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(one, ResourceError) for one in classes)
    drawn = errors.__doc__ or ""
    assert all(one.__name__ in drawn for one in classes)
