"""Folders of PyTorch distributed checkpoints (DCP), as FSDP writes: `.metadata` and `*.distcp`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from merge_ops.checkpoints.files.file_names import loose_pickles
from merge_ops.errors import CheckpointError

METADATA = ".metadata"
CONFIG = "config.json"
OF_ACCELERATE = "pytorch_model_fsdp_0"


def metadata_of(folder: Path) -> str | None:
    """Return the index of a folder's distributed checkpoint, relative to the folder.

    It lies at the top, or in the sub-folder that accelerate makes for the model. None where there
    is none, or weights that are whole stand beside it. Raises CheckpointError where this user may
    not look into the folder.
    """
    try:
        return _metadata_of(folder)
    except PermissionError as error:
        raise CheckpointError(f"{folder} cannot be read ({error.strerror})") from error


def _metadata_of(folder: Path) -> str | None:
    for name in (METADATA, f"{OF_ACCELERATE}/{METADATA}"):
        index = folder / name
        if not index.is_file() or not any(index.parent.glob("*.distcp")):
            continue
        inner = [each.relative_to(folder).as_posix() for each in index.parent.iterdir()]
        return index_among([*(each.name for each in folder.iterdir()), *inner])
    return None


def index_among(files: Iterable[str]) -> str | None:
    """Return the same of relative POSIX paths, of a place that may be no folder here."""
    listed = set(files)
    above = [each for each in listed if "/" not in each]
    if any(each.endswith(".safetensors") for each in above) or loose_pickles(above):
        return None
    for name in (METADATA, f"{OF_ACCELERATE}/{METADATA}"):
        parent, _, _ = name.rpartition("/")
        beside = (each.rpartition("/") for each in listed if each.endswith(".distcp"))
        if name in listed and any(at == parent for at, _, _ in beside):
            return name
    return None


def folder_with_config(folder: Path) -> Path:
    """Return where the config and tokenizer of a distributed checkpoint lie.

    That is its own folder, or the one above it, of the run. Raises CheckpointError where neither
    has a config.json: the weights do not say which model they are of.
    """
    for each in (folder, folder.parent):
        if (each / CONFIG).is_file():
            return each
    raise CheckpointError(
        f"{folder} is a PyTorch distributed checkpoint without a {CONFIG}; put {CONFIG} and the"
        f" tokenizer beside its .distcp files, or into the run's folder {folder.parent}"
    )
