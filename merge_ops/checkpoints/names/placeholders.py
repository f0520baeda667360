"""Placeholders: tensors without elements that a training run saved instead of the weights.

DeepSpeed ZeRO-3 spreads each weight over the processes. A model that is saved without gathering
them first holds tensors of shape [0]; the weights lie in the run's own checkpoints, if anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.errors import Fault

ADVICE = (
    "the weights were never saved: gather them with the run's `zero_to_fp32.py`, or save again with"
    " `stage3_gather_16bit_weights_on_model_save`"
)
# A buffer may well be empty; what is called so is a weight.
WEIGHTS = (".weight", ".weight_g", ".weight_v", "_proj", ".lora_embedding_A", ".lora_embedding_B")


def placeholder_fault(checkpoint: Checkpoint, others: Iterable[Checkpoint] = ()) -> Fault | None:
    """Return the fault that weights of a checkpoint are placeholders, or None.

    A float tensor without elements is one where its name is a weight's, or where another model has
    elements under that name.
    """
    empty = [
        name
        for name, entry in checkpoint.tensors.items()
        if 0 in entry.shape and entry.dtype in FLOAT_DTYPES
    ]
    if not empty:
        return None
    theirs = [other.tensors for other in others if other is not checkpoint]
    filled = [name for name in empty if any(name in each and each[name].count for each in theirs)]
    found = filled or [name for name in empty if name.endswith(WEIGHTS)]
    if not found:
        return None
    more = f" and {len(empty) - 1} more tensors" if len(empty) > 1 else ""
    shape = list(checkpoint.tensors[found[0]].shape)
    return Fault(
        checkpoint.name,
        f"holds '{found[0]}'{more} with shape {shape}: placeholders of a ZeRO-3 training run;"
        f" {ADVICE}",
    )
