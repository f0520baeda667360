"""Names inside an artifact store: which file names are safe, and where each thing is kept.

attempts/<id>/<file>                     bytes, written before anything is visible
attempts/<id>.json                       the attempt's marker: who writes, still alive when
attempts/<id>.claim                      whoever creates it (publish or gc) decides its fate
artifacts/<kind>/<digest>/manifest.json  makes an artifact exist
refs/<catalog>/<asset>/<partition>.json  a name, with its history
refs/<asset>/<partition>.json            the same, of the time before catalogs had names
catalogs/<catalog>.json                  a catalog that points here; @earlier.json: see namespaces
store.json                               the store's identity
withdrawn/<digest>.json                  a mark on a content: withdrawn, or not any more
signatures/<digest>/<key>.json           a signature of a content, by the hash of its public key
aside/<id>/<key>                         bad parts, moved out of the way and never deleted
probe/, tmp/                             short-lived, swept by gc
"""

import json
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from blake3 import blake3

from resources.errors import SecretFoundError, StoreAddressError

ATTEMPTS = "attempts"
ARTIFACTS = "artifacts"
REFS = "refs"
CATALOGS = "catalogs"
IDENTITY = "store.json"
ASIDE = "aside"
WITHDRAWN = "withdrawn"
SIGNATURES = "signatures"
MANIFEST = "manifest.json"
MARKER_SUFFIX = ".json"
CLAIM_SUFFIX = ".claim"
WAY_OUT = (
    "`ronghe verify --repair` sets it aside and asks for it again, and the next `ronghe refresh`"
    " makes it; check the storage underneath"
)
NO_PARTITION = "@"  # percent-encoding never yields it, so no partition key can collide

_KIND = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{7,127}")
_PLAIN = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.-]{0,254}")
"""The usual name of a file, which needs no closer look: each manifest that is read asks for it."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_SEGMENT = 160  # bytes; local file systems stop at 255, and a suffix is added
_SECRETS = (
    re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@:\"]+:[^/\s@\"]+@"),
)
_ADDRESSES = ("source", "url", "uri", "endpoint", "address", "resolved", "revision")
_TOKENS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "MODELSCOPE_API_TOKEN",
    "MODELSCOPE_ACCESS_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "OPENAI_API_KEY",
)  # fmt: skip
_SHORTEST_TOKEN = 16


def file_fault(file: object) -> str | None:
    """Say why `file` is no safe relative POSIX path, or None when it is one.

    Hidden names (a segment that starts with a dot) are refused, and with them `.` and `..`.
    """
    if not isinstance(file, str) or not file:
        return "must be a non-empty text"
    if _PLAIN.fullmatch(file):
        return None
    if file.startswith("/") or "\\" in file or _CONTROL.search(file):
        return "must be relative, with '/' between folders and no control characters"
    segments = file.split("/")
    if any(not segment or segment.startswith(".") for segment in segments):
        return "must have no empty segment and none that starts with '.'"
    try:
        if any(len(segment.encode()) > 255 for segment in segments) or len(file.encode()) > 800:
            return "is too long (at most 255 bytes a segment, 800 in all)"
    except UnicodeEncodeError:
        return "must be valid Unicode"
    return None


def manifest_key(kind: str, digest: str) -> str:
    """Return the key of an artifact's manifest.

    StoreAddressError is raised when kind or digest cannot be right.
    """
    if not _KIND.fullmatch(kind):
        raise StoreAddressError(
            f"artifact kind {kind!r} is not allowed: use lower-case letters, digits, '_' and '-', "
            f"starting with a letter, at most 64"
        )
    if not _DIGEST.fullmatch(digest):
        raise StoreAddressError(
            f"digest {digest!r} of a {kind!r} artifact is not allowed: use 8 to 128 letters, "
            f"digits, '_' or '-' (a hex digest, usually)"
        )
    return f"{ARTIFACTS}/{kind}/{digest}/{MANIFEST}"


def mark_key(digest: str) -> str:
    """Return the key of the mark on a content. StoreAddressError where it is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise StoreAddressError(f"{digest!r} is no digest that could be marked")
    return f"{WITHDRAWN}/{digest}.json"


def signature_folder(digest: str) -> str:
    """Return the key prefix of the signatures of a content. StoreAddressError for no digest."""
    if not _DIGEST.fullmatch(digest):
        raise StoreAddressError(f"{digest!r} is no digest that could be signed")
    return f"{SIGNATURES}/{digest}"


def ref_folder(catalog: str | None, asset: str) -> str:
    """Return the key prefix of a catalog's refs of one asset; `/` in an asset name makes folders.

    None is for refs of the time before catalogs had names.
    """
    segments = asset.split("/")
    if not all(segments):
        raise StoreAddressError(
            f"asset name {asset!r} is not allowed: it must have no empty part between '/'"
        )
    return "/".join([catalog_folder(catalog), *(_segment(part) for part in segments)])


def ref_key(catalog: str | None, asset: str, partition: str | None) -> str:
    """Return the key of one ref; any partition key is allowed, None says the asset has none."""
    name = NO_PARTITION if partition is None else _segment(partition)
    return f"{ref_folder(catalog, asset)}/{name}.json"


def catalog_folder(catalog: str | None) -> str:
    """Return the key prefix of all refs of a catalog; for None that of all refs."""
    return REFS if catalog is None else f"{REFS}/{_segment(catalog)}"


def catalog_key(catalog: str) -> str:
    """Return the key of the document that says that a catalog points here."""
    if not catalog:
        raise StoreAddressError("a catalog's name is empty; leave it out, or give one")
    return f"{CATALOGS}/{_segment(catalog)}.json"


def _segment(text: str) -> str:
    """One safe file name for `text`: percent-encoded, shortened by a hash when too long."""
    encoded = quote(text, safe="").replace(".", "%2E")
    if len(encoded) <= _LONGEST_SEGMENT:
        return encoded or "%"
    return f"{encoded[: _LONGEST_SEGMENT - 34]}~{blake3(text.encode()).hexdigest()[:32]}"


def partition_of(key: str) -> str:
    """Return the partition that a ref's key stands for, as far as the key tells; for people."""
    name = key.rsplit("/", 1)[-1].removesuffix(".json")
    return "" if name == NO_PARTITION else unquote(name.removesuffix("%"), errors="replace")


def parsed_note(data: bytes) -> dict[str, Any]:
    """Return a small JSON object of the store; an empty one for anything else."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def refuse_secrets(text: str, known: tuple[str, ...], where: str) -> None:
    """Raise SecretFoundError when the JSON `text` holds a secret.

    That is one of `known`, a token of this process's environment, or, in a field that holds an
    address, what is shaped like a secret. Names of tensors, files and models are strangers' words
    and may look like anything.
    """
    secrets = (*known, *_tokens())
    document = json.loads(text)
    addressed = any(p.search(each) for each in _addresses(document, False) for p in _SECRETS)
    if addressed or any(secret in text for secret in secrets):
        raise SecretFoundError(
            f"{where} would hold a secret (an access key, a token, or a password in a URL); "
            f"nothing was written. Leave it out: credentials come from the environment or ~/.aws"
        )


def _tokens() -> tuple[str, ...]:
    """The secrets that this process was given, of those long enough to be no word by chance."""
    given = (os.environ.get(name, "") for name in _TOKENS)
    return tuple(secret for secret in given if len(secret) >= _SHORTEST_TOKEN)


def _addresses(value: object, is_address: bool) -> Iterator[str]:
    """The texts of a document that hold addresses, by the names of their fields."""
    if isinstance(value, str) and is_address:
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _addresses(each, name in _ADDRESSES)
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each, is_address)
