"""What lies in a local store and is no file: it is damage of that one key, and hangs nobody."""

import os
import socket
from pathlib import Path

import pytest

from resources.errors import DamagedArtifactError
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.resources.special_files import put_special

SPOILS = ("pipe", "folder", "socket", "device", "dead link")


def replace(path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    if not put_special(path, kind):
        monkeypatch.chdir(path.parent)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)


def published(store: ArtifactStore) -> Artifact:
    with store.attempt("model") as attempt:
        attempt.write_bytes("weights", b"x" * 1000)
        return attempt.publish()


@pytest.mark.parametrize("kind", SPOILS)
@pytest.mark.parametrize("what", ["manifest.json", "weights", "ref"])
def test_it_is_damage_of_one_key(
    tmp_path: Path, kind: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore.open((tmp_path / "store").as_uri(), cache=tmp_path / "cache")
    artifact = published(store)
    store.point("model", "a", "model", artifact.digest)
    pattern = {"ref": "refs/**/a.json", "weights": "attempts/*/weights"}.get(what, f"**/{what}")
    (path,) = (tmp_path / "store").glob(pattern)
    replace(path, kind, monkeypatch)
    if what == "weights":
        assert store.verify(store.get("model", artifact.digest)) != []
        return
    with pytest.raises(DamagedArtifactError):
        store.ref("model", "a") if what == "ref" else store.get("model", artifact.digest)

    # whoever lists finds it, and it can be set aside
    key = path.relative_to(tmp_path / "store").as_posix()
    if what == "ref":
        assert store.ref_table("model").damaged.keys() == {"a"}
    else:
        assert store.upkeep.manifests() == [("model", artifact.digest)]
    assert len(store.upkeep.set_aside([key])) == 1
    assert not os.path.lexists(path)
    store.point("model", "a", "model", published(store).digest)
