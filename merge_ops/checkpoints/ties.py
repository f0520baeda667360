"""Ties: which stored tensors of a model are one tensor, and which are not merged for it.

A head that is tied to the embedding is the embedding; a checkpoint may store it or leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from merge_ops.checkpoints.buffers import is_obsolete
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of
from merge_ops.checkpoints.tensor_names import is_embedding, is_head


def excluded(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return the tensors that are not merged, each with the reason."""
    reasons = dict(checkpoint.left_out)
    has_embedding = any(is_embedding(name) for name in checkpoint.tensors)
    for name in checkpoint.tensors:
        if is_obsolete(name):
            reasons[name] = "a buffer that loading recomputes"
        elif is_head(name) and checkpoint.ties_embeddings and has_embedding:
            reasons[name] = "tied to the input embedding, which is written once"
    return reasons


def own_heads(checkpoints: Iterable[Checkpoint]) -> set[str]:
    """Return the output heads that any of the checkpoints has untied from its embedding."""
    return {
        name
        for checkpoint in checkpoints
        for name in checkpoint.tensors
        if is_head(name) and name not in excluded(checkpoint)
    }


def find_source(checkpoint: Checkpoint, name: str) -> TensorSource | None:
    """Return the source of the tensor `name`, or None where the checkpoint lacks it.

    Where a tied checkpoint does not store its output head, the input embedding is the source.
    """
    source = source_of(checkpoint, name)
    if source is None and is_head(name) and checkpoint.ties_embeddings:
        embedding = next((each for each in checkpoint.tensors if is_embedding(each)), name)
        return source_of(checkpoint, embedding)
    return source
