"""Buffers: tensors that loading computes anew, told from their names."""

from __future__ import annotations


def is_buffer(name: str) -> bool:
    """Return whether a tensor is a buffer of old checkpoints, by its name.

    Every loader computes these buffers anew.
    """
    return name.endswith((".rotary_emb.inv_freq", ".attn.masked_bias"))
