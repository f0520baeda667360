"""Buffers: tensors that loading computes anew, told from their names, dtypes and shapes.

Position numbers, causal masks and rotary frequencies follow from the config. Old checkpoints hold
them and newer ones do not, so one model of a merge may have them and another not; they are never
averaged. A name alone is not enough: `attn.bias` is GPT-2's causal mask [1, 1, n, n] and a vision
transformer's learned bias [width].

A counter of BatchNorm (`num_batches_tracked`) is none of them, since no loader makes it anew; it is
copied.
"""

from __future__ import annotations

from math import prod
from typing import Protocol

from merge_ops.checkpoints.header import FLOAT_DTYPES

# Left out of every result, whoever has them: no loader of today looks for them.
OBSOLETE = (".rotary_emb.inv_freq", ".attn.masked_bias")
# Whole numbers up to a length: CLIP's and BERT's, whatever dtype a conversion gave them.
POSITIONS = frozenset({"position_ids"})
WHOLE_NUMBERS = frozenset(
    {"token_type_ids", "relative_position_index", "attention_bias_idxs", "rel_pos_index"}
)
FREQUENCIES = frozenset(
    {
        "inv_freq", "original_inv_freq", "cos_cached", "sin_cached", "cos_cache", "sin_cache",
        "freqs_cis", "relative_coords_table",
    }
)  # fmt: skip
MASKS = frozenset({"causal_mask", "attn_mask", "attention_mask", "future_mask", "alibi_mask"})
# A mask of GPT-2, GPT-J, GPT-Neo and GPT-NeoX, told from a learned bias by its shape.
MASKS_BY_SHAPE = ("attn.bias", "attention.bias")
MASKED_VALUE = "masked_bias"
META_FREQUENCIES = "rope.freqs"
# Numbers of steps done. Two trainings differ in them, and no weight depends on them.
_LAST_PARTS = POSITIONS | WHOLE_NUMBERS | FREQUENCIES | MASKS | {"bias", MASKED_VALUE, "freqs"}
COUNTERS = frozenset({"num_batches_tracked", "num_updates"})
_COUNTERS, _ENDS = tuple(COUNTERS), tuple(_LAST_PARTS)


class Typed(Protocol):
    """A typed tensor has a dtype code and a shape: a header entry, or a source of values."""

    @property
    def dtype(self) -> str:
        """Return the safetensors dtype code."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape."""
        ...


def is_obsolete(name: str) -> bool:
    """Return whether a tensor is a buffer that no loader looks for any more, by its name."""
    return name.endswith(OBSOLETE)


def is_buffer(name: str, entry: Typed) -> bool:
    """Return whether loading computes a tensor anew, by its name, dtype and shape."""
    if not name.endswith(_ENDS):  # most names are through here
        return False
    last = name.rpartition(".")[2]
    if last not in _LAST_PARTS:
        return False
    whole = entry.dtype not in FLOAT_DTYPES
    if is_obsolete(name) or last in POSITIONS or (last in WHOLE_NUMBERS and whole):
        return True
    if last in FREQUENCIES or name == META_FREQUENCIES or name.endswith(f".{META_FREQUENCIES}"):
        return True
    if last == MASKED_VALUE:
        return prod(entry.shape) == 1
    if last in MASKS:
        return len(entry.shape) > 1 and entry.shape[-1] == entry.shape[-2]
    if name == "bias" or not name.endswith(MASKS_BY_SHAPE):
        return False
    return len(entry.shape) == 4 and entry.shape[:2] == (1, 1) and entry.shape[2] == entry.shape[3]


def is_counter(name: str) -> bool:
    """Return whether a tensor counts steps of training, by its name."""
    return name.endswith(_COUNTERS) and name.rpartition(".")[2] in COUNTERS
