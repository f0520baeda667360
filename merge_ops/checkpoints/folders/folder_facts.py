"""Facts of a model, told from its config and headers, for people who look at a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.folders.folder_verdict import FolderReading
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.depth import layers_of
from merge_ops.checkpoints.names.name_prefixes import wrapper_prefix
from merge_ops.checkpoints.names.placeholders import placeholder_fault
from merge_ops.checkpoints.names.tensor_names import is_head
from merge_ops.checkpoints.names.tie_names import is_input
from merge_ops.checkpoints.names.ties import tied_tensors
from merge_ops.checkpoints.quantization import quantization_fault, quantization_of
from merge_ops.checkpoints.vocabulary import vocabulary_files


@dataclass(frozen=True)
class ModelFacts:
    """Model facts are what a folder's config and headers say of a model; plain data.

    `layers` counts the layers of each stack, `dtypes` the tensors of each dtype. `prefix` is what
    wrappers put before all names, `buffers` are tensors that loading computes anew.
    """

    architectures: tuple[str, ...]
    model_type: str
    layers: Mapping[str, int]
    tensors: int
    parameters: int
    nbytes: int
    dtypes: Mapping[str, int]
    tie: str
    quantization: str
    vocabulary: tuple[str, ...]
    buffers: tuple[str, ...]
    prefix: str

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return asdict(self)


def model_facts(source: ByteSource, reading: FolderReading) -> ModelFacts | None:
    """Return the facts of what was read, or None where no tensors are known."""
    if not reading.tensors:
        return None
    config, tensors = reading.config, reading.tensors
    given: Any = config.get("architectures") or config.get("_class_name")
    checkpoint = _opened(source, reading)
    listed = cast("list[Any]", given) if isinstance(given, list) else [given] if given else []
    return ModelFacts(
        tuple(map(str, listed)),
        str(config.get("model_type", "")),
        dict(layers_of(tensors)),
        len(tensors),
        sum(entry.count for entry in tensors.values()),
        sum(entry.nbytes for entry in tensors.values()),
        dict(Counter(entry.dtype for entry in tensors.values()).most_common()),
        _tie(checkpoint),
        quantization_of(checkpoint) or "none",
        vocabulary_files(checkpoint),
        tuple(sorted(name for name, entry in tensors.items() if is_buffer(name, entry))),
        wrapper_prefix(tensors.keys()),
    )


def further_faults(source: ByteSource, reading: FolderReading) -> tuple[str, ...]:
    """Return what stands against merging a model beside its verdict: numbers that cannot be."""
    if not reading.tensors:
        return ()
    found = (
        quantization_fault(_opened(source, reading)),
        placeholder_fault(_opened(source, reading)),
    )
    return tuple(str(fault) for fault in found if fault is not None)


def _opened(source: ByteSource, reading: FolderReading) -> Checkpoint:
    at = reading.verdict.location
    return Checkpoint(at, source, reading.tensors, reading.config, None, reading.files)


def _tie(checkpoint: Checkpoint) -> str:
    """How the output head and the input embedding belong together, in words."""
    copies = tied_tensors(checkpoint)
    told = [f"'{one}' is '{other}'" for one, other in [*copies.items()][:3]]
    own = sorted(name for name in checkpoint.tensors if is_head(name) and name not in copies)
    inputs = any(map(is_input, checkpoint.tensors))
    if own and checkpoint.ties_embeddings:
        told.append(f"'{own[0]}' is a head of its own, though config.json ties it")
    elif own:
        told.append(f"'{own[0]}' is a head of its own")
    elif inputs and not copies:
        tied = "the embedding is the head" if checkpoint.ties_embeddings else "none"
        told.append(f"no head is stored: {tied}")
    return "; ".join(told) or "no embedding of tokens"
