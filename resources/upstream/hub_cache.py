"""Models in the local cache of the Hugging Face Hub, found without its client and its network.

    <cache>/models--owner--name/refs/<branch or tag>     the commit it was, when it was downloaded
    <cache>/models--owner--name/snapshots/<commit>/      the files that were downloaded, as links

Whoever loads a tokenizer alone leaves a snapshot without weights, and a download that was cut off
one with some of them. So a snapshot is looked at before it is taken for the model.
"""

import hashlib
import json
import os
import re
from io import FileIO
from pathlib import Path
from typing import Any

from resources.upstream.cache_notes import read_ref
from resources.upstream.folder_door import FolderDoor
from resources.upstream.source import CONVERTIBLE

COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_ENDPOINT = "https://huggingface.co"
ANSWER = 30.0
"""Seconds of silence of the Hub: a mirror may ask the Hub itself before it answers."""
_MAX_JSON = 64_000_000
_NUMBERED = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.bin)")
_TOKENIZERS = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
    "spiece.model", "tekken.json",
)  # fmt: skip


def hub_cache() -> Path:
    """Return the folder that the Hub's client keeps downloads in, by the same variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if not home:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def hub_endpoint() -> str:
    """Return the address of the Hub, or of the mirror that HF_ENDPOINT names now."""
    return (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as the Hub tells it of large files."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def model_folder(name: str, cache: Path | None = None) -> Path:
    """Return where the cache keeps the model `owner/name`, whether it is there or not."""
    return (cache or hub_cache()) / f"models--{name.replace('/', '--')}"


def cached_snapshot(name: str, revision: str, cache: Path | None = None) -> Path | None:
    """Return the folder of a model's snapshot at a branch, tag or commit; None if it is not there.

    It may be a part of the model: `missing_weights` tells.
    """
    folder = model_folder(name, cache)
    commit = revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = read_ref(folder / "refs" / revision)
        except (OSError, ValueError):
            return None
    if not COMMIT.fullmatch(commit):
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def missing_weights(folder: Path) -> str | None:
    """Return the first weight file that a snapshot should have and has not, or None.

    An index names the files; without one, numbered files tell how many they are.
    """
    files = {path.name for path in folder.iterdir() if path.is_file()}
    weights = {name for name in files if name.endswith(".safetensors")} or {
        name for name in files if CONVERTIBLE.fullmatch(name)
    }
    if not weights:
        return "every file of weights"
    suffix = ".safetensors" if any(name.endswith(".safetensors") for name in weights) else ".bin"
    wanted = _indexed(folder, [name for name in files if name.endswith(f"{suffix}.index.json")])
    for name in weights:
        numbered = _NUMBERED.fullmatch(name)
        if numbered:
            stem, count = numbered["stem"], numbered["count"]
            wanted |= {f"{stem}-{each:05d}-of-{count}{suffix}" for each in range(1, int(count) + 1)}
    return min(wanted - files, default=None)


def _indexed(folder: Path, indexes: list[str]) -> set[str]:
    """The weight files that indexes name. One that cannot be read is the reader's to refuse."""
    named: set[str] = set()
    for index in indexes:
        try:
            table = _json_in(folder, index)["weight_map"]
            named |= {str(file) for file in table.values()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return named


def _json_in(folder: Path, file: str) -> Any:
    """The value of a JSON file of a snapshot. Raises OSError, ValueError and RecursionError."""
    with FileIO(FolderDoor(folder).open(file)) as opened:
        data = opened.read(_MAX_JSON + 1)
    if data is None or len(data) > _MAX_JSON:
        raise ValueError("far too long")
    return json.loads(data)


def may_lack_side_files(folder: Path) -> bool:
    """Return whether a snapshot with weights may have been downloaded without what lies beside.

    So it is where there is no config, or no tokenizer although the config tells of a vocabulary.
    """
    files = {path.name for path in folder.iterdir() if path.is_file()}
    if "adapter_config.json" in files:
        return False
    if "config.json" not in files:
        return True
    if files.intersection(_TOKENIZERS):
        return False
    try:
        config = _json_in(folder, "config.json")
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and "vocab_size" in config
