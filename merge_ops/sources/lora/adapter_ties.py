"""What becomes of tensors that are tied to those an adapter changes: as in PEFT.

A head of the adapter's own is one from now on, unless the adapter says that both stay tied. An
embedding saved whole by itself leaves what was tied to it as it was: PEFT puts it into a module of
its own. A low-rank change goes into the one weight that all of them share.
"""

from __future__ import annotations

from collections.abc import Mapping

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource, source_of
from merge_ops.checkpoints.names.tie_names import dependents, is_output
from merge_ops.checkpoints.names.ties import find_source, tied_tensors


def settle_ties(
    base: Checkpoint,
    whole: Mapping[str, Stored],
    stay_tied: bool,
    overlays: dict[str, TensorSource],
) -> None:
    """Add to `overlays` what keeps its value beside a tensor saved whole.

    `whole` are the tensors that the adapter saves whole, by the names that they replace. With
    `stay_tied` the heads among the overlays go instead.
    """
    if stay_tied and base.ties_embeddings:
        for head in [tensor for tensor in overlays if is_output(tensor)]:
            del overlays[head]
        return
    copies = tied_tensors(base)
    for tensor, stored in whole.items():
        before = source_of(base, copies.get(tensor, tensor))
        if before is None or ".base_layer." in stored.name:
            continue
        stored_copies = [name for name, other in copies.items() if other == tensor]
        for other in (*stored_copies, *dependents(tensor, base.config)):
            if other not in overlays and (other in copies or _stands_for(base, tensor, other)):
                overlays[other] = before


def _stands_for(base: Checkpoint, tensor: str, other: str) -> bool:
    """Whether `tensor` is what a base has for `other`, which it does not store."""
    if other in base.tensors:
        return False
    return find_source(base, other) == source_of(base, tensor)
