"""Models signed with an elliptic-curve key, and looked at again, by sigstore's `model-signing`.

What is signed is the SHA-256 of every file: anybody can check a folder against the bundle with
`model_signing verify key`. No network is used. Here the files are hashed where they lie, so that
nothing is copied for it.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_ops.errors import SignatureError
from merge_ops.working_folders import working_folder
from resources.outbound import OutgoingFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from assets.work.upstream.packed_models import StoredModel
    from resources.store import ArtifactStore

_PIECE = 8 << 20
MOST_KEY = 1 << 16
"""Bytes of a file with a key."""


def sign(
    store: "ArtifactStore",
    model: "StoredModel",
    key: Path,
    password: str | None = None,
    told: "Callable[[int], object] | None" = None,
) -> str:
    """Sign a model's files, and keep the signature in the store; return the public key's hash.

    `told` hears how many bytes are hashed. Raises SignatureError where the key is none that signs.
    """
    from model_signing import signing

    private = _read_key(key)
    config = signing.Config()
    try:
        with working_folder() as work:
            plain, bundle = work / "key", work / "signature.json"
            plain.touch(0o600)
            plain.write_bytes(_without_password(private, password))
            config.use_elliptic_key_signer(private_key=plain)
            plain.unlink()
            config.set_hashing_config(_hashing(model, told))
            config.sign(work, bundle)
            data = bundle.read_bytes()
    except (ValueError, TypeError, AttributeError) as error:  # the last is of a key without a curve
        raise SignatureError(f"{key} signs nothing: {error}; give {_A_KEY}") from error
    public = _hash_of(_public_of(private, password))
    store.signatures.put(model.digest, public, data)
    return public


def check_signature(
    store: "ArtifactStore",
    model: "StoredModel",
    public_key: Path,
    told: "Callable[[int], object] | None" = None,
) -> str | None:
    """Say what is wrong with a model's signature by a key; None where its files are as signed.

    Raises SignatureError where the file holds no public key of an elliptic curve.
    """
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    key = _hash_of(_normal_public(public_key))
    data = store.signatures.get(model.digest, key)
    if data is None:
        others = len(store.signatures.keys(model.digest))
        more = f"; {others} other keys have signed it" if others else ""
        return f"is not signed by this key ({key[:12]}){more}"
    with working_folder() as work:
        bundle = work / "signature.json"
        bundle.write_bytes(data)
        try:
            config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
            config.set_hashing_config(_hashing(model, told))
            config.verify(work, bundle)
        except InvalidSignature:
            return "has a signature that is not this key's"
        except Exception as error:  # a bundle is anybody's bytes, and its reader raises every kind
            from resources.errors import ResourceError

            if isinstance(error, ResourceError):
                raise
            return f"is not as it was signed: {error}"
    return None


_A_KEY = "a private key of an elliptic curve as PEM (openssl ecparam -name prime256v1 -genkey)"


def is_encrypted(key: Path) -> bool:
    """Tell whether a private key asks for a password. Raises SignatureError."""
    return b"ENCRYPTED" in _read_key(key)


def _hashing(model: "StoredModel", told: "Callable[[int], object] | None") -> Any:
    """What model-signing hashes by: the files of a model where they lie, one after another."""
    from model_signing import hashing, manifest

    # The one private name: the package is pinned, and a digest of another class equals none.
    digest_of = hashing.Config()._build_stream_hasher("sha256")

    class StoredFiles(hashing.Config):
        def hash(self, model_path: Any, *, files_to_hash: Any = None) -> manifest.Manifest:
            items: list[manifest.ManifestItem] = []
            done = 0
            with model.source() as source:
                for path, record in model.files.items():
                    digest_of.reset()
                    with OutgoingFile(path, record.size, source).open() as file:
                        while piece := file.read(_PIECE):
                            digest_of.update(piece)
                            done += len(piece)
                            if told is not None:
                                told(done)
                    digest = digest_of.compute()
                    items.append(manifest.FileManifestItem(path=Path(path), digest=digest))
            how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False}
            described = manifest.SerializationType.from_args(how)
            return manifest.Manifest(model.digest, items, described)

    return StoredFiles()


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_KEY + 1)
    except OSError as error:
        raise SignatureError(f"the key {path} cannot be read: {error.strerror or error}") from error
    if len(data) > MOST_KEY or b"-----BEGIN" not in data:
        raise SignatureError(f"{path} holds no key as PEM; give {_A_KEY}, or its public key")
    return data


def _private(data: bytes, password: str | None) -> Any:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(data, password.encode() if password else None)


def _without_password(data: bytes, password: str | None) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return _private(data, password).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _public_of(data: bytes, password: str | None) -> bytes:
    return _pem(_private(data, password).public_key())


def _normal_public(path: Path) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    try:
        key = serialization.load_pem_public_key(_read_key(path))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(
            f"{path} holds no public key as PEM (openssl ec -in KEY -pubout makes one)"
        ) from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise SignatureError(f"{path} holds a public key that is not of an elliptic curve")
    return _pem(key)


def _pem(key: Any) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _hash_of(pem: bytes) -> str:
    """The name of a public key, as the bundle has it too."""
    return hashlib.sha256(pem).hexdigest()
