"""Which folders are adapters that can be merged: by their files, and by what their tensors are."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from merge_ops.checkpoints.files.file_names import (
    ADAPTER,
    ADAPTER_FILES,
    INDEX,
    PICKLE,
    PICKLE_INDEX,
    SINGLE,
)
from merge_ops.checkpoints.folders.adapter_names import OF_OTHERS
from merge_ops.checkpoints.folders.folder_verdict import FolderVerdict
from merge_ops.errors import CheckpointError
from merge_ops.sources.lora.adapter_config import FILE as CONFIG_FILE

WEIGHTS_FILE = ADAPTER
_OF_A_MODEL = frozenset({SINGLE, INDEX, PICKLE, PICKLE_INDEX})


def is_adapter(files: Collection[str]) -> bool:
    """Return whether a folder with these files is an adapter and no checkpoint.

    It has an adapter's config, and its weights or no config of a model, and no model's weights.
    What the tensors say, and whether both are there, is the business of `read_folder`.
    """
    if CONFIG_FILE not in files or not _OF_A_MODEL.isdisjoint(files):
        return False
    return "config.json" not in files or any(file in files for file in ADAPTER_FILES)


def check_kind(name: str, verdict: FolderVerdict) -> None:
    """Raise CheckpointError for what is damaged, and for adapters of other programs than PEFT."""
    if verdict.faults and verdict.kind not in ("empty", "no_weights", "adapter"):
        raise CheckpointError("; ".join(verdict.faults))
    if verdict.adapter is not None and verdict.adapter in OF_OTHERS:
        raise CheckpointError(
            f"model '{name}': {verdict.location} ({verdict.weights[0]}) is a {verdict.adapter},"
            f" and no adapter in PEFT's form; {OF_OTHERS[verdict.adapter]}"
        )


def check_files(name: str, location: str, files: Mapping[str, int]) -> None:
    """Raise CheckpointError where the config or the weights of an adapter are not there."""
    if CONFIG_FILE not in files:
        raise CheckpointError(
            f"model '{name}': {location} has no {CONFIG_FILE}; an adapter is a folder with"
            f" {CONFIG_FILE} and {WEIGHTS_FILE}, as PEFT saves it"
        )
    if WEIGHTS_FILE not in files:
        pickled = [file for file in files if file.endswith((".bin", ".pt", ".pth"))]
        what = f"pickled weights ({pickled[0]})" if pickled else f"no {WEIGHTS_FILE}"
        how = ", which can run code when opened; convert it to safetensors" if pickled else ""
        raise CheckpointError(f"model '{name}': {location} holds {what}{how}")
