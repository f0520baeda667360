"""The anatomy of a decoder: which tensors form its layers, and how wide what runs between them is.

Only models whose every tensor is understood have one: a change that leaves out one tensor would not
keep the function.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.ties import excluded, head_is_embedding
from merge_ops.errors import CompatibilityError, Fault

KNOWN = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
"""Kinds of decoders with RMSNorm, SwiGLU, grouped heads and rotary pairs (i, i + d/2)."""

_LAYER = re.compile(r"^(?P<layer>.*\blayers\.\d+)\.(?P<part>.+)$")
_PARTS = {
    "input_layernorm.weight", "post_attention_layernorm.weight",
    *(f"self_attn.{name}_proj.{kind}" for name in "qkvo" for kind in ("weight", "bias")),
    "self_attn.q_norm.weight", "self_attn.k_norm.weight",
    *(f"mlp.{name}_proj.{kind}" for name in ("gate", "up", "down") for kind in ("weight", "bias")),
}  # fmt: skip
_NEEDED = {name for name in _PARTS if name.endswith(("proj.weight", "layernorm.weight"))}


@dataclass(frozen=True)
class Anatomy:
    """An anatomy holds the names and widths of a decoder.

    `layers` are prefixes such as `model.layers.3`, in order. `head` is None where the output head
    is the input embedding. `normed_heads` says that queries and keys are normed head by head, so
    that they cannot be turned or scaled.
    """

    kind: str
    layers: tuple[str, ...]
    embedding: str
    final_norm: str
    head: str | None
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_size: int
    rotary_size: int
    normed_heads: bool
    names: frozenset[str]

    @property
    def group(self) -> int:
        """Return how many query heads share a key-value head."""
        return self.heads // self.kv_heads

    def has(self, layer: str, part: str) -> bool:
        """Return whether a layer has a part such as `self_attn.q_proj.bias`."""
        return f"{layer}.{part}" in self.names


def read_anatomy(checkpoint: Checkpoint) -> Anatomy:
    """Read the anatomy of a decoder from its headers and its config.

    Raises CompatibilityError where its kind is not known here, or a tensor has another place.
    """
    faults: list[Fault] = []
    kind = str(checkpoint.config.get("model_type"))
    if kind not in KNOWN:
        known = ", ".join(KNOWN)
        faults.append(Fault("config.json", f"has model_type {kind!r}; known symmetries: {known}"))
        raise _refusal(checkpoint, faults)
    skipped = excluded(checkpoint)
    names = frozenset(
        name
        for name, entry in checkpoint.tensors.items()
        if name not in skipped and not is_buffer(name, entry)
    )
    layers: dict[str, set[str]] = {}
    others: list[str] = []
    for name in names:
        found = _LAYER.match(name)
        if found and found["part"] in _PARTS:
            layers.setdefault(found["layer"], set()).add(found["part"])
        else:
            others.append(name)
        if checkpoint.tensors[name].dtype not in FLOAT_DTYPES:
            faults.append(Fault(name, f"is {checkpoint.tensors[name].dtype}, and no float"))
    named = {_role(name): name for name in sorted(others)}
    strange = [name for name in others if _role(name) not in ("embedding", "norm", "head")]
    faults += [Fault(name, "has no place in a decoder that is known here") for name in strange]
    faults += [
        Fault(f"{layer}.{part}", "is missing")
        for layer, parts in layers.items()
        for part in sorted(_NEEDED - parts)
    ]
    tied = head_is_embedding(checkpoint)
    needed = ("embedding", "norm") if tied else ("embedding", "norm", "head")
    faults += [Fault(role, "is missing") for role in needed if role not in named]
    if not layers:
        faults.append(Fault("layers", "are missing"))
    if faults:
        raise _refusal(checkpoint, faults)
    return _with_widths(checkpoint, kind, layers, named, tied, names)


def _role(name: str) -> str:
    if name.endswith("embed_tokens.weight"):
        return "embedding"
    if name.endswith("lm_head.weight"):
        return "head"
    return "norm" if re.search(r"(^|\.)norm\.weight$", name) else "other"


def _with_widths(
    checkpoint: Checkpoint,
    kind: str,
    layers: Mapping[str, set[str]],
    named: Mapping[str, str],
    tied: bool,
    names: frozenset[str],
) -> Anatomy:
    ordered = sorted(layers, key=lambda each: int(each.rpartition(".")[2]))
    config: Mapping[str, Any] = checkpoint.config
    heads = config.get("num_attention_heads")
    kv_heads = config.get("num_key_value_heads", heads)
    first = ordered[0]
    query = checkpoint.tensors[f"{first}.self_attn.q_proj.weight"].shape
    if type(heads) is not int or type(kv_heads) is not int or heads < 1 or kv_heads < 1:
        raise _refusal(checkpoint, [Fault("config.json", "does not state the number of heads")])
    size = query[0] // heads
    share = config.get("partial_rotary_factor", 1.0)
    rotary = int(size * share) if isinstance(share, int | float) else size
    anatomy = Anatomy(
        kind,
        tuple(ordered),
        named["embedding"],
        named["norm"],
        None if tied else named["head"],
        query[1],
        checkpoint.tensors[f"{first}.mlp.gate_proj.weight"].shape[0],
        heads,
        kv_heads,
        size,
        rotary,
        f"{first}.self_attn.q_norm.weight" in names,
        names,
    )
    faults = [
        Fault(f"{layer}.{part}", f"has shape {list(found)}, and by config.json it is {list(shape)}")
        for layer in ordered
        for part, shape in shapes_of(anatomy).items()
        if (found := checkpoint.tensors[f"{layer}.{part}"].shape) != shape
    ]
    if heads % kv_heads or faults:
        raise _refusal(checkpoint, faults or [Fault("config.json", "has heads of no equal groups")])
    return anatomy


def shapes_of(anatomy: Anatomy) -> dict[str, tuple[int, int]]:
    """Return the shape of every matrix of a layer, by its part."""
    hidden, inner = anatomy.hidden, anatomy.intermediate
    queries, keys = anatomy.heads * anatomy.head_size, anatomy.kv_heads * anatomy.head_size
    return {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }


def _refusal(checkpoint: Checkpoint, faults: list[Fault]) -> CompatibilityError:
    return CompatibilityError(
        f"model '{checkpoint.name}' has no symmetries that are known here", faults
    )
