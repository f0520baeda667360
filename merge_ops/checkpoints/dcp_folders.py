"""Folders of PyTorch distributed checkpoints (DCP), as FSDP writes: `.metadata` and `*.distcp`."""

from __future__ import annotations

from pathlib import Path

from merge_ops.checkpoints.file_names import loose_pickles
from merge_ops.errors import CheckpointError

METADATA = ".metadata"
CONFIG = "config.json"
_OF_ACCELERATE = "pytorch_model_fsdp_0"


def metadata_of(folder: Path) -> str | None:
    """Return the index of a folder's distributed checkpoint, relative to the folder.

    It lies at the top, or in the sub-folder that accelerate makes for the model. None where there
    is none, or weights that are whole stand beside it.
    """
    for name in (METADATA, f"{_OF_ACCELERATE}/{METADATA}"):
        index = folder / name
        if not index.is_file() or not any(index.parent.glob("*.distcp")):
            continue
        files = [each.name for each in folder.iterdir()]
        whole = any(each.endswith(".safetensors") for each in files) or loose_pickles(files)
        return None if whole else name
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
