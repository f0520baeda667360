"""Do two models give every row of their embeddings the same token?"""

from __future__ import annotations

from collections.abc import Iterator

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.tensor_names import ASK_FOR_POLICY, is_vocabulary, shape_fault
from merge_ops.checkpoints.ties import find_source
from merge_ops.checkpoints.vocabulary import equal_vocabularies, vocabulary
from merge_ops.errors import Fault


def differing_vocabulary(base: Checkpoint, expert: Checkpoint) -> bool:
    """Return whether equal row numbers mean different tokens, or one model has more rows."""
    return next(vocabulary_faults(base, expert), None) is not None


def vocabulary_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """Yield where equal row numbers mean different tokens, or one model has more rows."""
    yield from tokenizer_faults(base, expert)
    for name, entry in base.tensors.items():
        other = find_source(expert, name)
        if other is not None and is_vocabulary(name) and entry.shape != other.shape:
            yield shape_fault(base, expert, name, entry.shape, other.shape)


def tokenizer_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """Yield where the tokenizers of two models give tokens other rows."""
    if equal_vocabularies(base, expert):
        return
    ours, theirs = vocabulary(base) or {}, vocabulary(expert) or {}
    differing = [token for token, number in ours.items() if theirs.get(token) != number]
    extra = [token for token in theirs if token not in ours]
    example = (differing or extra)[0]
    yield Fault(
        expert.name,
        f"has another vocabulary than {base.name}: {len(differing)} tokens moved or missing,"
        f" {len(extra)} new (first: {example!r}); embedding rows would be averaged across different"
        f" tokens. {ASK_FOR_POLICY}",
    )
