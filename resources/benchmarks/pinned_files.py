"""Files of benchmarks at a pinned commit of a public GitHub repository, kept on the local disk.

They are no part of this project. Each is fetched once, and kept only where its bytes have the
SHA-256 that the suite names.
"""

import hashlib
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import quote
from urllib.request import Request

from resources.errors import ModelSourceError, RequestFailedError
from resources.upstream.local_copies import copies_folder
from resources.web_requests import Tries, answer_to

ADDRESS = "https://raw.githubusercontent.com"
LARGEST = 64_000_000
"""Bytes of one file."""
_ANSWER = 30.0  # seconds: silence before and within an answer
_TRIES, _PAUSE = 4, 0.5
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def kept_file(repository: str, commit: str, path: str, sha256: str) -> Path | None:
    """Return where a pinned file is kept on this machine, or None where it was not fetched yet."""
    kept = _kept(repository, commit, path)
    return kept if kept.is_file() and _digest(kept.read_bytes()) == sha256 else None


def fetch_file(repository: str, commit: str, path: str, sha256: str) -> Path:
    """Return a pinned file, fetched where it is not kept yet.

    Raises ModelSourceError where it does not come, or has other bytes than its SHA-256 says.
    """
    found = kept_file(repository, commit, path, sha256)
    if found is not None:
        return found
    address = f"{ADDRESS}/{repository}/{commit}/{quote(path)}"
    data = _download(address)
    if (given := _digest(data)) != sha256:
        raise ModelSourceError(
            f"benchmark file {address} has the SHA-256 {given}, not {sha256}; what came is not what"
            " the suite names, and is not kept"
        )
    kept = _kept(repository, commit, path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=kept.parent, prefix=".part-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(name, kept)
    return kept


def _kept(repository: str, commit: str, path: str) -> Path:
    parts = path.split("/")
    if not _REPOSITORY.fullmatch(repository) or {"", ".", ".."}.intersection(parts):
        raise ModelSourceError(f"benchmark file {repository}/{path}: its name leads nowhere")
    return copies_folder("github", repository) / commit / path


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _download(address: str) -> bytes:
    try:
        data = answer_to(Request(address), Tries(_TRIES, _PAUSE, _ANSWER), LARGEST + 1)
    except RequestFailedError as error:
        raise _not_fetched(address, error.why) from error
    if len(data) > LARGEST:
        raise _not_fetched(address, f"it has more than {LARGEST} bytes")
    return data


def _not_fetched(address: str, reason: str) -> ModelSourceError:
    return ModelSourceError(
        f"benchmark file {address} cannot be fetched: {reason}. Where this machine does not reach"
        " it, put the files into a folder and name it as `data_dir` in the suite"
    )
