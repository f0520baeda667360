"""Models that pack queries, keys and values in one matrix, under the names of classes that do not.

    convert: llama        an InternLM2 model     convert: internlm2    a llama model, back
    convert: glm          a ChatGLM2/3 or GLM-4  convert: chatglm      a glm model, back

InternLM2 packs `wqkv` by key-value head: the rows of its G queries, its key, its value, then the
next head's (InternLM2ForCausalLM of its own code, and of vLLM). ChatGLM packs `query_key_value` as
all queries, all keys, all values; it is transformers' `glm`, whose rotary embedding turns pairs
(2i, 2i+1) of the first half of each head, as ChatGLM's code does. Rows are cut and joined, so that
there and back is every bit.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from merge_ops.arrangement.packed_configs import (
    needed_numbers,
    packed_config,
    packed_config_faults,
)
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of, unstored_entry
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.errors import Fault
from merge_ops.sources.fused_tensors import Joined
from merge_ops.sources.row_ranges import RowRange

PAIRS = {("internlm2", "llama"), ("llama", "internlm2"), ("chatglm", "glm"), ("glm", "chatglm")}
"""(model_type, target) of every conversion here."""
_QKV = ("q", "k", "v")
_AT = r"(?P<at>layers\.\d+)\."
_INTERNLM2 = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
    "model.norm.weight": "model.norm.weight",
    "attention_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
}
_CHATGLM = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.output_layer.weight": "lm_head.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "input_layernorm.weight": "input_layernorm.weight",
    "post_attention_layernorm.weight": "post_attention_layernorm.weight",
    "self_attention.dense.weight": "self_attn.o_proj.weight",
    "mlp.dense_h_to_4h.weight": "mlp.gate_up_proj.weight",
    "mlp.dense_4h_to_h.weight": "mlp.down_proj.weight",
}
"""Names of the packed class by those of the other; what has no dot in front is within a layer."""


@dataclasses.dataclass(frozen=True)
class _Heads:
    """Sizes of attention: H query heads, K key-value heads, of `size` each."""

    queries: int
    groups: int
    size: int

    @property
    def rows(self) -> int:
        """The rows of the packed matrix."""
        return (self.queries + 2 * self.groups) * self.size


def packed_faults(model: Checkpoint, target: str) -> Iterator[Fault]:
    """Yield why a model cannot be repacked as `target` exactly, told before it is made."""
    kind, config = str(model.config.get("model_type")), model.config
    if model.overlays:
        problem = "is made while it is read (an adapter on a base, or a packed model)"
        yield Fault(model.name, f"{problem}; merge it into a folder first, and convert that")
        return
    missing = [key for key in needed_numbers(kind) if type(config.get(key)) not in (int, float)]
    if missing:
        told = ", ".join(missing)
        yield Fault(model.name, f"does not say {told} in config.json, and classes have defaults")
        return
    yield from packed_config_faults(model, kind)
    heads = _heads(config)
    if heads is None:
        yield Fault(model.name, "has attention heads that do not divide into key-value heads")
        return
    known, odd = _names(kind, target), list[str]()
    for name, entry in model.tensors.items():
        if _renamed(name, known) is None and _packed(name, kind) is None and not is_buffer(
            name, entry
        ):  # fmt: skip
            odd.append(name)
    if odd:
        yield Fault(model.name, f"has '{odd[0]}', which {target} has no place for")
        return
    yield from _row_faults(model, kind, heads)


def _heads(config: Mapping[str, Any]) -> _Heads | None:
    heads = int(config["num_attention_heads"])
    groups = config.get("multi_query_group_num", config.get("num_key_value_heads"))
    size = config.get("kv_channels") or config.get("head_dim")
    size = int(size or config["hidden_size"] // max(heads, 1))
    found = _Heads(heads, int(groups or heads), size)
    own = config.get("model_type") in ("internlm2", "llama")  # which know no other size of a head
    if min(found.queries, found.groups, found.size) < 1 or heads % found.groups:
        return None
    return None if own and heads * size != config["hidden_size"] else found


def _names(kind: str, target: str) -> dict[str, str]:
    """The target's names by the model's, of all that is not packed."""
    table = _INTERNLM2 if "internlm2" in (kind, target) else _CHATGLM
    packs = kind in ("internlm2", "chatglm")
    return dict(table) if packs else {new: old for old, new in table.items()}


def _front(kind: str) -> str:
    """What stands before `layers.N.` in the names of a class."""
    return "transformer.encoder." if kind == "chatglm" else "model."


def _renamed(name: str, known: Mapping[str, str]) -> tuple[str | None, str] | None:
    """The layer (`layers.N`) of a tensor and its other name there; without a layer its name."""
    found = re.fullmatch(rf"(?:model|transformer\.encoder)\.{_AT}(?P<rest>.+)", name)
    other = known.get(found["rest"] if found else name)
    return None if other is None else (found["at"] if found else None, other)


def _packed(name: str, kind: str) -> tuple[str, str, str] | None:
    """The layer of a part of q, k and v, which part (`qkv`: all), and whether weight or bias."""
    part = {
        "internlm2": r"model\.{at}attention\.w(?P<part>qkv)\.(?P<what>weight)",
        "chatglm": r"transformer\.encoder\.{at}self_attention\.(?P<part>query_key_value)\."
        r"(?P<what>weight|bias)",
        "glm": r"model\.{at}self_attn\.(?P<part>[qkv])_proj\.(?P<what>weight|bias)",
        "llama": r"model\.{at}self_attn\.(?P<part>[qkv])_proj\.(?P<what>weight)",
    }[kind]
    found = re.fullmatch(part.replace("{at}", _AT), name)
    return None if found is None else (found["at"], found["part"], found["what"])


def _row_faults(model: Checkpoint, kind: str, heads: _Heads) -> Iterator[Fault]:
    """Projections that are not whole, or whose rows are not those of the heads."""
    wanted = {"q": heads.queries * heads.size, "k": heads.groups * heads.size}
    wanted |= {"v": wanted["k"], "qkv": heads.rows, "query_key_value": heads.rows}
    seen: dict[tuple[str, str], set[str]] = {}
    for name, entry in model.tensors.items():
        found = _packed(name, kind)
        if found is None:
            continue
        seen.setdefault((found[0], found[2]), set()).add(found[1])
        if entry.shape[:1] != (wanted[found[1]],):
            problem = f"has '{name}' {list(entry.shape)}; its heads make {wanted[found[1]]} rows"
            yield Fault(model.name, problem)
            return
    parts = (
        {"qkv"} if kind == "internlm2" else {"query_key_value"} if kind == "chatglm" else {*_QKV}
    )
    whats = ("weight", "bias") if kind in ("chatglm", "glm") else ("weight",)
    layers = int(model.config.get("num_layers", model.config.get("num_hidden_layers", 0)))
    for layer in range(layers):
        for what in whats:
            if seen.get((f"layers.{layer}", what)) != parts:
                yield Fault(model.name, f"lacks q, k or v ({what}) in layer {layer}")
                return


def repacked(model: Checkpoint, target: str) -> Checkpoint:
    """Return a model without `packed_faults` as the class `target`."""
    kind, heads = str(model.config["model_type"]), _heads(model.config)
    assert heads is not None  # told by packed_faults
    known, sources = _names(kind, target), dict[str, TensorSource]()
    parts: dict[tuple[str, str], dict[str, TensorSource]] = {}
    left_out: dict[str, str] = {}
    for name in model.tensors:
        own, other, packed = source_of(model, name), _renamed(name, known), _packed(name, kind)
        assert own is not None  # its own tensor
        if packed is not None:
            parts.setdefault((packed[0], packed[2]), {})[packed[1]] = own
        elif other is not None:
            at = "" if other[0] is None else f"{_front(target)}{other[0]}."
            sources[at + other[1]] = own
        else:
            left_out[name] = "a buffer that loading recomputes"
    for (at, what), found in parts.items():
        made = _split(found, kind, heads) if len(found) == 1 else _joined(found, target, heads)
        for part, source in made.items():
            block = {
                "internlm2": "attention.wqkv",
                "chatglm": "self_attention.query_key_value",
            }.get(target, f"self_attn.{part}_proj")
            sources[f"{_front(target)}{at}.{block}.{what}"] = source
    ordered = {name: sources[name] for name in sorted(sources, key=natural_key)}
    entries = {name: unstored_entry(each) for name, each in ordered.items()}
    config = packed_config(model.config, target)
    return dataclasses.replace(
        model,
        tensors=entries,
        overlays=ordered,
        config=config,
        left_out={**model.left_out, **left_out},
    )


def _split(found: Mapping[str, TensorSource], kind: str, heads: _Heads) -> dict[str, TensorSource]:
    """Queries, keys and values of a packed matrix."""
    (whole,) = found.values()
    counts = {"q": heads.queries, "k": heads.groups, "v": heads.groups}
    if kind == "chatglm":
        made: dict[str, TensorSource] = {}
        first = 0
        for part, count in counts.items():
            made[part] = RowRange(whole, first, count * heads.size)
            first += count * heads.size
        return made
    each = heads.queries // heads.groups
    inside = {"q": range(each), "k": range(each, each + 1), "v": range(each + 1, each + 2)}
    return {
        part: _below(
            [
                RowRange(whole, (group * (each + 2) + at) * heads.size, heads.size)
                for group in range(heads.groups)
                for at in inside[part]
            ]
        )
        for part in _QKV
    }


def _joined(
    found: Mapping[str, TensorSource], target: str, heads: _Heads
) -> dict[str, TensorSource]:
    """The packed matrix of queries, keys and values, under any one name."""
    counts = {"q": heads.queries, "k": heads.groups, "v": heads.groups}
    rows = {
        part: [RowRange(found[part], at * heads.size, heads.size) for at in range(counts[part])]
        for part in _QKV
    }
    if target == "chatglm":
        return {"": _below([row for part in _QKV for row in rows[part]])}
    each, ordered = heads.queries // heads.groups, list[RowRange]()
    for group in range(heads.groups):
        ordered += rows["q"][group * each : (group + 1) * each]
        ordered += [rows["k"][group], rows["v"][group]]
    return {"": _below(ordered)}


def _below(rows: list[RowRange]) -> Joined:
    """Ranges of one size, each below the one before."""
    shape = (len(rows) * rows[0].count, *rows[0].shape[1:])
    return Joined(shape, (tuple(rows),))
