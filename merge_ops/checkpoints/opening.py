"""Opening a checkpoint: its headers and its config are read, and no weight."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSource, FolderSource
from merge_ops.checkpoints.folders.adapter_names import OF_OTHERS
from merge_ops.checkpoints.folders.folder_verdict import FolderVerdict, read_folder
from merge_ops.checkpoints.names.name_prefixes import without_wrappers
from merge_ops.errors import CheckpointError, MissingModelError


def open_checkpoint(
    name: str, source: ByteSource | None = None, digest: str | None = None
) -> Checkpoint:
    """Read a checkpoint's headers (a few KB) and return it; no weight is read.

    Without a `source` it is the folder `name`. Raises MissingModelError where nothing is,
    CheckpointError where it is anything but one model (see `folder_verdict`), or where the files
    contradict the format: truncated, header longer than the file, overlapping or missing ranges, an
    index that points outside the folder or to tensors that are not there.
    """
    source = source or FolderSource(Path(name))
    reading = read_folder(source)
    raise_unless_model(name, reading.verdict)
    cautions = tuple(
        dataclasses.replace(each, where=f"model '{name}'") for each in reading.verdict.cautions
    )
    checkpoint = Checkpoint(
        name, source, reading.tensors, reading.config, digest, reading.files, cautions=cautions
    )
    return without_wrappers(checkpoint)


def raise_unless_model(name: str, verdict: FolderVerdict) -> None:
    """Raise what stands against opening a folder as a model; `name` is for messages.

    Raises MissingModelError where nothing is there, and CheckpointError for all else.
    """
    if verdict.faults:
        error = MissingModelError if verdict.kind in ("empty", "no_weights") else CheckpointError
        raise error(f"model '{name}': {'; '.join(verdict.faults)}")
    if verdict.kind == "adapter":
        raise CheckpointError(f"model '{name}': {verdict.location} {_adapter(verdict)}")
    if verdict.pickled:
        raise CheckpointError(
            f"model '{name}': {verdict.location} holds pickled weights ({verdict.weights[0]}),"
            " which can run code when opened; convert it to safetensors first"
        )


def _adapter(verdict: FolderVerdict) -> str:
    kind = verdict.adapter or "LoRA"
    if kind == "LoRA":
        return (
            "is a LoRA adapter, which is no model without its base; name both, as 'base+adapter'"
            " (`ronghe merge-adapters` merges adapters alone, into an adapter)"
        )
    way = OF_OTHERS.get(kind, "merge it into its base with PEFT, and name the model that comes out")
    return (
        f"is a {kind} (tensors such as '{_example(verdict)}'), which is no model without its base;"
        f" averages of its factors are not the average of its changes: {way}"
    )


def _example(verdict: FolderVerdict) -> str:
    return next((each.split("'")[1] for each in verdict.why if "such as '" in each), "none")
