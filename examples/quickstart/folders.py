"""Model folders that are there in full or not at all.

A model is written to a staging folder beside its place and moved there when it is complete. A
hidden file in it, the record, says how it was made; a folder without one is not ours to keep.
"""

import contextlib
import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

RECORD = ".quickstart.json"
STAGING = ".staging"


@dataclass(frozen=True)
class Record:
    """The digest of what decides a model's weights, and how often the model was updated."""

    fingerprint: str
    revision: int = 0


def read_record(folder: Path) -> Record | None:
    """Return the record of a model folder, None when there is none that can be read."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Record(str(content["fingerprint"]), int(content["revision"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def exclusive(upstream: Path) -> Iterator[None]:
    """Hold `upstream` alone (a second run waits), free of what an interrupted run left."""
    upstream.mkdir(parents=True, exist_ok=True)
    with (upstream / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(upstream / STAGING, ignore_errors=True)
        yield
        shutil.rmtree(upstream / STAGING, ignore_errors=True)


@contextlib.contextmanager
def replaced(folder: Path, record: Record) -> Iterator[Path]:
    """Yield an empty staging folder; leaving without an exception moves it to `folder`.

    The old folder, if any, is moved away first, so for an instant there is none; at no time is
    there a mixture of old and new files. After an exception the old folder is as it was.
    """
    staging = folder.parent / STAGING
    staging.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=staging))
    new, old = place / "new", place / "old"
    try:
        new.mkdir()
        yield new
        (new / RECORD).write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(place, ignore_errors=True)


def write_if_changed(file: Path, text: str) -> bool:
    """Write a file in one step unless it holds `text` already; return whether it was written."""
    data = text.encode()
    if file.is_file() and file.read_bytes() == data:
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(data)
    part.replace(file)
    return True
