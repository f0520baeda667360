"""What leaves the store: signed, pushed to a hub, or as an OCI layout that others can read."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner, Result

from assets.work.records.stored_names import open_named, resolve_name
from merge_ops.errors import LicenceConflictError, OutputError, SettingsError, SignatureError
from orchestration.commands.cli import app
from orchestration.settings import NAMES
from resources.errors import OutboundError, WithdrawnError
from resources.store import ArtifactStore
from tests.assets.work.sharing_store import CHAMPION, store_with_champion
from tests.resources.upload_hub import running_upload_hub

WHY = "trained on the test items"
OF_ITS_CLIENT = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""What huggingface_hub does when it uploads, and its HTTP library warns of."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ArtifactStore, Path, str]:
    return store_with_champion(tmp_path_factory.mktemp("sharing"))


@pytest.fixture
def store(
    made: tuple[ArtifactStore, Path, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ArtifactStore]:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RONGHE_STORE", made[0].uri)
    monkeypatch.setenv("RONGHE_CATALOG_NAME", "team")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    yield made[0]
    for digest in made[0].marks.withdrawn():
        made[0].marks.take_back(digest, "the test is over")


def ronghe(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def failure(result: Result, kind: type[Exception]) -> str:
    assert isinstance(result.exception, kind), result.exception
    return str(result.exception)


def keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private key of an elliptic curve and its public key, as openssl writes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def test_a_signature_is_kept_beside_the_artifact_and_checked(
    store: ArtifactStore, made: tuple[ArtifactStore, Path, str], tmp_path: Path
) -> None:
    pytest.importorskip("model_signing")
    from model_signing import verifying

    (private, public), (_, other) = keys(tmp_path, "ours"), keys(tmp_path, "theirs")
    manifest = store.place.read(store.upkeep.manifest_key("checkpoint", made[2]))
    signed = ronghe("sign", CHAMPION, "--key", private, "--json")
    assert signed.exit_code == 0, signed.output
    told = json.loads(signed.stdout)
    assert store.signatures.keys(made[2]) == [told["key"]]
    assert store.place.read(store.upkeep.manifest_key("checkpoint", made[2])) == manifest
    good = ronghe("verify", "champion/ties", "--signed", "--public-key", public)
    assert good.exit_code == 0, good.output
    assert "1 of 1 artifacts" in good.output

    # model-signing by itself says the same of the files as they were.
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(store.signatures.get(made[2], told["key"]) or b"")
    verifying.Config().use_elliptic_key_verifier(public_key=public).verify(made[1], bundle)

    another = ronghe("verify", CHAMPION, "--signed", "--public-key", other)
    assert another.exit_code == 1
    assert "is not signed by this key" in " ".join(another.output.split())
    assert "1 other keys have signed it" in " ".join(another.output.split())
    # A signature by one key under another's name.
    key = hashlib.sha256(other.read_bytes()).hexdigest()
    store.signatures.put(made[2], key, bundle.read_bytes())
    forged = ronghe("verify", CHAMPION, "--signed", "--public-key", other)
    assert forged.exit_code == 1
    assert "is not as it was signed" in " ".join(forged.output.split())
    every = ronghe("verify", "--signed", "--public-key", public)
    assert every.exit_code == 1
    assert "1 of 3 artifacts" in every.output


def test_a_flipped_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("model_signing")
    from assets.work.sharing.signing import check_signature, sign

    store, _, digest = store_with_champion(tmp_path)
    private, public = keys(tmp_path, "ours")
    model = open_named(store, resolve_name(store, CHAMPION))
    sign(store, model, private)
    assert check_signature(store, model, public) is None
    # Another content under the signature of this one, as a swapped file would be.
    with store.attempt("checkpoint") as attempt:
        for path, record in model.files.items():
            data = bytearray(store.get("checkpoint", digest).read_bytes(path))
            if path.endswith("00001-of-00002.safetensors"):
                data[-1] ^= 1
            assert len(data) == record.size
            attempt.write_bytes(path, bytes(data))
        flipped = attempt.publish()
    (key,) = store.signatures.keys(digest)
    store.signatures.put(flipped.digest, key, store.signatures.get(digest, key) or b"")
    told = check_signature(store, flipped, public)
    assert told is not None
    assert told.startswith("is not as it was signed: Signature mismatch")
    # A byte of the signature itself.
    bundle = json.loads(store.signatures.get(digest, key) or b"")
    entry = bundle["dsseEnvelope"]["signatures"][0]
    entry["sig"] = ("A" if entry["sig"][20] != "A" else "B").join(
        (entry["sig"][:20], entry["sig"][21:])
    )
    store.signatures.put(digest, key, json.dumps(bundle).encode())
    assert check_signature(store, model, public) is not None


def test_what_is_no_key_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    pytest.importorskip("model_signing")
    text, key = tmp_path / "text", tmp_path / "rsa.pem"
    text.write_text("no key")
    pair = rsa.generate_private_key(65537, 2048)
    key.write_bytes(
        pair.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    assert "holds no key as PEM" in failure(ronghe("sign", CHAMPION, "--key", text), SignatureError)
    assert "signs nothing" in failure(ronghe("sign", CHAMPION, "--key", key), SignatureError)
    assert "cannot be read" in failure(
        ronghe("sign", CHAMPION, "--key", tmp_path / "none"), SignatureError
    )
    assert "holds no public key" in failure(
        ronghe("verify", CHAMPION, "--signed", "--public-key", key), SignatureError
    )
    assert "go together" in failure(ronghe("verify", CHAMPION, "--signed"), SettingsError)


@OF_ITS_CLIENT
def test_a_push_is_one_commit_of_all_files(
    store: ArtifactStore,
    made: tuple[ArtifactStore, Path, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with running_upload_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
        planned = ronghe("push", CHAMPION, "team/herbs", "--dry-run")
        assert planned.exit_code == 0, planned.output
        assert "nothing was sent" in planned.output
        assert "model-00001-of-00002.safetensors" in planned.output
        assert "# A merge" in planned.output
        assert hub.requests == []
        pushed = ronghe("push", CHAMPION, "team/herbs", "--private", "--json")
        assert pushed.exit_code == 0, (pushed.output, pushed.exception)
        told = json.loads(pushed.stdout)
    sent = hub.repositories["team/herbs"]
    assert hub.private == {"team/herbs": True}
    assert told["commit"].startswith(f"{hub.endpoint}/team/herbs/commit/")
    here = {
        path.relative_to(made[1]).as_posix(): path.read_bytes()
        for path in made[1].rglob("*")
        if path.is_file()
    }
    assert set(sent) == set(here)
    assert all(sent[path] == data for path, data in here.items() if path != "README.md")
    assert sent["README.md"].startswith(here["README.md"])
    assert b"| base | apache" in sent["README.md"] or b"| base |" in sent["README.md"]
    assert hub.messages == [f"{CHAMPION} ({made[2][:12]}), by Ronghe"]


@OF_ITS_CLIENT
def test_a_push_that_a_hub_refuses_or_cuts_says_so(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    with running_upload_hub(refuse=403) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        told = failure(ronghe("push", CHAMPION, "team/herbs"), OutboundError)
    assert "the Hub answers 403; log in with `hf auth login`" in told
    assert "hf_of_a_test" not in told
    with running_upload_hub(ignored=("config.json",)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        told = failure(ronghe("push", CHAMPION, "team/herbs"), OutboundError)
    assert "lacks config.json after the push" in told
    with running_upload_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.repositories["team/open"], hub.private["team/open"] = {}, False
        told = failure(ronghe("push", CHAMPION, "team/open", "--private"), OutboundError)
        assert hub.repositories["team/open"] == {}
    assert "is there already, and is public; nothing was pushed" in told
    told = failure(ronghe("push", CHAMPION, "herbs"), OutboundError)
    assert told.startswith("'herbs' is no repository of the Hub: write owner/name")


def test_what_is_withdrawn_or_in_conflict_does_not_leave(
    store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "oci"
    digest = resolve_name(store, "e1").digest
    store.marks.withdraw(digest, WHY, "e1", warn_only=True)
    for command in (
        ("push", CHAMPION, "team/herbs", "--dry-run"),
        ("export", CHAMPION, "--oci", out),
    ):
        told = failure(ronghe(*command), WithdrawnError)
        assert WHY in told
    assert not out.exists()
    store.marks.take_back(digest, "all is well")
    base = resolve_name(store, "base").digest
    store.point("model", "base", "model", base, licence="gpl-3.0")
    store.point("model", "e1", "model", digest, licence="llama3.1")
    told = failure(ronghe("export", CHAMPION, "--oci", out), LicenceConflictError)
    assert told.startswith("ties/champion is not exported: the licences of its inputs do not go")
    assert not out.exists()
    store.point("model", "base", "model", base, licence="apache-2.0")
    store.point("model", "e1", "model", digest, licence="apache-2.0")


def blob(layout: Path, descriptor: dict) -> bytes:
    """A blob by its descriptor, as the specification of OCI's image layout says."""
    algorithm, _, name = descriptor["digest"].partition(":")
    data = (layout / "blobs" / algorithm / name).read_bytes()
    assert len(data) == descriptor["size"]
    assert hashlib.new(algorithm, data).hexdigest() == name
    return data


def test_an_oci_layout_is_read_back_by_the_specification_alone(
    store: ArtifactStore, made: tuple[ArtifactStore, Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "oci"
    exported = ronghe("export", CHAMPION, "--oci", out, "--json")
    assert exported.exit_code == 0, (exported.output, exported.exception)
    assert json.loads((out / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((out / "index.json").read_text())
    assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
    (described,) = index["manifests"]
    assert described["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert described["annotations"] == {"org.opencontainers.image.ref.name": "ties-champion"}
    assert json.loads(exported.stdout)["manifest"] == described["digest"]
    manifest = json.loads(blob(out, described))
    assert manifest["schemaVersion"] == 2
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    config = json.loads(blob(out, manifest["config"]))
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert config["modelfs"]["type"] == "layers"
    assert config["modelfs"]["diffIds"] == [each["digest"] for each in manifest["layers"]]
    assert config["descriptor"]["revision"] == made[2]
    assert config["descriptor"]["licenses"] == ["Apache-2.0"]
    kinds, read = {}, {}
    for layer in manifest["layers"]:
        path = layer["annotations"]["org.cncf.model.filepath"]
        metadata = json.loads(layer["annotations"]["org.cncf.model.file.metadata+json"])
        assert (metadata["name"], metadata["size"]) == (path, layer["size"])
        kinds[path], read[path] = layer["mediaType"], blob(out, layer)
    assert kinds["config.json"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert kinds["README.md"] == "application/vnd.cncf.model.doc.v1.raw"
    weights = [path for path in read if path.endswith(".safetensors")]
    assert len(weights) == 2
    for path in weights:
        assert kinds[path] == "application/vnd.cncf.model.weight.v1.raw"
        (length,) = struct.unpack("<Q", read[path][:8])
        assert json.loads(read[path][8 : 8 + length])
        assert read[path] == (made[1] / path).read_bytes()
    blobs = {each.name for each in (out / "blobs" / "sha256").iterdir()}
    named = [described, manifest["config"], *manifest["layers"]]
    assert blobs == {each["digest"].partition(":")[2] for each in named}
    assert "exists and is not empty" in failure(
        ronghe("export", CHAMPION, "--oci", out), OutputError
    )
    again = tmp_path / "again"
    ronghe("export", CHAMPION, "--oci", again)
    assert (again / "index.json").read_bytes() == (out / "index.json").read_bytes()
