"""Ties: which stored tensors of a model are one tensor, and which are not merged for it.

A tensor that is tied to another one is that one, whether a checkpoint stores it or leaves it out. A
config says that a head may be tied, or its class does; the bytes say whether a stored one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of
from merge_ops.checkpoints.names.buffers import OBSOLETE, is_obsolete
from merge_ops.checkpoints.names.tie_names import (
    bias_partners,
    inputs_for,
    is_bias_copy,
    is_output,
    may_be_tied,
    shared_names,
)


def tied_tensors(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return the stored tensors that are copies of others, each with the tensor that it is.

    Raises CheckpointError where bytes that had to be compared cannot be read.
    """
    return checkpoint.copies


def excluded(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return the tensors that are not merged, each with the reason."""
    copies = tied_tensors(checkpoint)
    reasons = dict(checkpoint.left_out)
    told = [name for name in checkpoint.tensors if name.endswith(OBSOLETE) or name in copies]
    for name in told:
        if is_obsolete(name):
            reasons[name] = "a buffer that loading recomputes"
        elif name in copies and is_output(name):
            reasons[name] = "tied to the input embedding, which is written once"
        elif name in copies:
            reasons[name] = f"tied to '{copies[name]}', which is written once"
    return reasons


def own_heads(checkpoints: Iterable[Checkpoint]) -> set[str]:
    """Return the tensors that could be tied, but that any of the checkpoints keeps apart.

    These are output heads and their biases, and the embeddings of encoder and decoder where these
    are not one.
    """
    return {name for checkpoint in checkpoints for name in _kept_apart(checkpoint)}


def head_is_embedding(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint's output head is its input embedding."""
    apart = (name for name in _kept_apart(checkpoint) if is_output(name))
    return checkpoint.ties_embeddings and next(apart, None) is None


def find_source(checkpoint: Checkpoint, name: str) -> TensorSource | None:
    """Return the source of the tensor `name`, or None where the checkpoint lacks it.

    Where it is tied to another one, that one is the source, whether it is stored or not.
    """
    copies = checkpoint.copies
    source = source_of(checkpoint, copies.get(name, name) if copies else name)
    if source is not None:
        return source
    stand_in = next((each for each in _stand_ins(checkpoint, name)), None)
    return source_of(checkpoint, stand_in) if stand_in else None


def has_source(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether `find_source` finds one, without making it."""
    stored = checkpoint.copies.get(name, name) in checkpoint.tensors
    return stored or find_source(checkpoint, name) is not None


def _kept_apart(checkpoint: Checkpoint) -> set[str]:
    copies = tied_tensors(checkpoint)
    named = filter(may_be_tied, checkpoint.tensors)
    stored = [name for name in named if name not in copies]
    apart = {name for name in stored if is_output(name) or is_bias_copy(name)}
    for name in stored:
        members = [each for each in shared_names(name) if each in checkpoint.tensors]
        if len([each for each in members if each not in copies]) > 1:
            apart.add(name)
    return apart


def _stand_ins(checkpoint: Checkpoint, name: str) -> list[str]:
    """The stored tensors that may stand for one that is left out, the likeliest first."""
    others: Iterable[str] = (*shared_names(name), *bias_partners(name))
    if is_output(name) and checkpoint.ties_embeddings:
        others = inputs_for(name, checkpoint.tensors)
    return [each for each in others if each in checkpoint.tensors]
