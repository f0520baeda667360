"""Opening a checkpoint: its headers and its config are read, and no weight."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from merge_ops.checkpoints.byte_sources import ByteSource, FolderSource, read_file
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import TensorEntry, read_header
from merge_ops.checkpoints.name_prefixes import without_wrappers
from merge_ops.checkpoints.weight_files import weight_files
from merge_ops.errors import CheckpointError, MissingModelError


def open_checkpoint(
    name: str, source: ByteSource | None = None, digest: str | None = None
) -> Checkpoint:
    """Read a checkpoint's headers (a few KB) and return it; no weight is read.

    Without a `source` it is the folder `name`. Raises MissingModelError where nothing is,
    CheckpointError where the files contradict the format: truncated, header longer than the file,
    overlapping or missing ranges, an index that points outside the folder or to tensors that are
    not there.
    """
    source = source or FolderSource(Path(name))
    files = source.sizes()
    if not files:
        raise MissingModelError(
            f"model '{name}': {source.location} does not exist or is empty; give a folder with"
            " config.json and .safetensors files"
        )
    if "adapter_config.json" in files and "config.json" not in files:
        raise CheckpointError(
            f"model '{name}': {source.location} is a LoRA adapter, which is no model"
            " without its base; name both, as 'base+adapter' (`ronghe merge-adapters` merges"
            " adapters alone, into an adapter)"
        )
    tensors: dict[str, TensorEntry] = {}
    for file, expected in weight_files(name, source, files).items():
        entries = _header(source, file, files[file])
        if expected is not None and set(expected) - set(entries):
            absent = sorted(set(expected) - set(entries))[0]
            raise CheckpointError(
                f"{source.location}: the index says tensor '{absent}' is in {file}, which does not"
                " hold it; the download is incomplete or files of two revisions are mixed"
            )
        for key, entry in entries.items():
            if key in tensors:
                raise CheckpointError(
                    f"{source.location}: tensor '{key}' is in {tensors[key].file} and in {file};"
                    " remove the stale file"
                )
            tensors[key] = entry
    checkpoint = Checkpoint(name, source, tensors, {}, digest, files)
    if "config.json" in files:
        config = checkpoint.json_files.read("config.json")
        checkpoint = dataclasses.replace(checkpoint, config=config)
    return without_wrappers(checkpoint)


def _header(source: ByteSource, file: str, size: int) -> dict[str, TensorEntry]:
    return read_header(
        f"{source.location}/{file}", file, size, lambda at, n: read_file(source, file, at, n)
    )
