"""What names a store accepts, and what a manifest may and may not say."""

import json
from pathlib import Path

import pytest

from resources.errors import (
    AttemptError,
    DamagedArtifactError,
    SecretFoundError,
    StoreAddressError,
)
from resources.store.artifact_store import ArtifactStore


@pytest.mark.parametrize(
    "file", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a\\b", "a\nb", "x" * 256]
)
def test_unsafe_file_names_are_refused(tmp_path: Path, file: str) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    with (
        store.attempt("checkpoint") as attempt,
        pytest.raises(AttemptError, match=r"cannot hold a file .*: it "),
    ):
        attempt.open(file, 1)


def test_kinds_digests_and_fields_are_checked(tmp_path: Path) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    with pytest.raises(StoreAddressError, match=r"kind '\.\./x' is not allowed: use lower-case"):
        store.attempt("../x")
    with pytest.raises(StoreAddressError, match=r"digest '\.\./\.\./x' of a 'scores' artifact"):
        store.find("scores", "../../x")
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        with pytest.raises(AttemptError, match="sets files, kind itself; choose other"):
            attempt.publish(files=[], kind="x")
        with pytest.raises(AttemptError, match="can hold only JSON values"):
            attempt.publish(loss=float("nan"))
        with pytest.raises(AttemptError, match="can hold only JSON values"):
            attempt.publish(plan=object())


def test_a_manifest_never_holds_a_secret(store: ArtifactStore) -> None:
    known = store.place.secrets()
    shaped = ("AKIA" + "A1" * 8, "hf_" + "Ab1" * 11, "https://user:pass@hub.example/x")
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"{}")
        for secret in (*known, *shaped):
            with pytest.raises(SecretFoundError, match="would hold a secret") as refused:
                attempt.publish(inputs={"source": f"from {secret}"})
            assert secret not in str(refused.value)
        attempt.publish(inputs={"source": "hf://Qwen/Qwen2.5-0.5B@main"})


def test_strangers_names_are_no_secrets_and_tokens_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor may be called anything; the token of this process is in no manifest."""
    token = "not-like-a-token-at-all"
    monkeypatch.setenv("HF_TOKEN", token)
    store = ArtifactStore.open(tmp_path.as_uri())
    names = [f"hf_{'a' * 40}", f"AKIA{'A1' * 8}", "https://user:pass@hub.example/x"]
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("a.json", b"{}")
        for fields in ({"warnings": [f"see {token}"]}, {"inputs": {token: "x"}}):
            with pytest.raises(SecretFoundError, match="would hold a secret") as refused:
                attempt.publish(**fields)
            assert token not in str(refused.value)
        held = attempt.publish(
            tensors=names, inputs=dict.fromkeys(names, "x"), plan={"excluded": {names[0]: names[1]}}
        )
    assert held.manifest["tensors"] == names
    store.point("model", names[0], "checkpoint", held.digest, why=names[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: manifest.update(format=99), "is not of format 1"),
        (lambda manifest: manifest.pop("kind"), "lacks one of kind"),
        (lambda manifest: manifest.update(attempt="../x"), "has no proper attempt"),
        (lambda manifest: manifest["files"][0].update(path="../x"), "no proper list of files"),
        (lambda manifest: manifest["files"][0].update(size=-1), "no proper list of files"),
        (lambda manifest: manifest["files"][0].update(blake3="é"), "no proper list of files"),
        (lambda manifest: manifest["files"].append(manifest["files"][0]), "lists a file twice"),
        (lambda manifest: manifest["files"][0].update(size=3), "other files than its content dig"),
        (
            lambda manifest: manifest.update(digest="another-digest"),
            "is that of scores another-dig",
        ),
    ],
)
def test_a_broken_manifest_is_refused(tmp_path: Path, change, said: str) -> None:
    store = ArtifactStore.open(tmp_path.as_uri())
    with store.attempt("scores") as attempt:
        attempt.write_bytes("a.json", b"12")
        manifest = attempt.publish("some-digest").manifest
    change(manifest)
    path = tmp_path / "artifacts/scores/some-digest/manifest.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(DamagedArtifactError, match=said):
        store.find("scores", "some-digest")
    for text in ("", "[" * 100_000, "\udcff", '{"format": 1'):
        path.write_text(text, errors="surrogateescape")
        with pytest.raises(DamagedArtifactError, match="no JSON"):
            store.find("scores", "some-digest")
