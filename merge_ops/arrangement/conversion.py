"""A decoder under another architecture's names and config: llama, mistral, qwen2, mixtral, phi3.

They compute one function where they have the same parts: RMSNorm, SwiGLU, grouped heads, one
rotary embedding over whole heads, full attention. A Mixtral of one moe_expert gives it the whole
weight (the softmax of one number is 1). Biases that a class always has are zeros; llama keeps those
of qwen2 (`attention_bias`, with a zero one at its output). Everything else is refused with the
reason: nothing is converted nearly.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.arrangement.mixtures.layouts import axis_faults, laid_out, layouts_in
from merge_ops.checkpoints.checkpoint import Checkpoint, DigestOf, Numbers, Stored, TensorSource
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.header import ITEM_SIZES, TensorEntry
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.errors import Fault
from merge_ops.sources.fused_layouts import LAYOUTS, layout_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCES = ("llama", "mistral", "qwen2", "mixtral", "phi3")
_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "mixtral": "MixtralForCausalLM",
}
# Classes have other defaults for these, so they must be said.
_SAID = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "rms_norm_eps", "vocab_size", "max_position_embeddings",
)  # fmt: skip
_KEPT = (
    *_SAID, "head_dim", "hidden_act", "initializer_range", "use_cache", "attention_dropout",
    "rope_theta", "rope_scaling", "rope_parameters", "bos_token_id", "eos_token_id",
    "pad_token_id", "dtype", "torch_dtype", "transformers_version",
)  # fmt: skip
_TOKENS = {"bos_token_id": 1, "eos_token_id": 2}
_ROPES = ("default", "linear", "dynamic", "yarn", "llama3")
_BIASES = re.compile(r"\.self_attn\.[qkv]_proj\.bias$")
_PARTS = re.compile(
    r"(?:model\.)?(?:embed_tokens\.weight|norm\.weight|layers\.\d+\."
    r"(?:(?:input|post_attention)_layernorm\.weight|self_attn\.(?:[qkvo]_proj\.(?:weight|bias))"
    r"|mlp\.(?:gate|up|down)_proj\.weight))|lm_head\.weight"
)
_GATE = re.compile(r"\.(?:block_sparse_moe|mlp)\.gate\.weight$")
_ONLY_ONE = "the router of one moe_expert, whose share is always 1"
_LAYER = re.compile(r"(?P<at>.*layers\.\d+)\.self_attn\.q_proj\.weight")


@dataclass(frozen=True)
class Zeros(Numbers):
    """A tensor of zeros, which a class has and a model does without."""

    model: str
    dtype: str
    shape: tuple[int, ...]

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return that it is zeros of this dtype and shape."""
        return ["zeros", self.dtype, list(self.shape)]

    def numbers(self, start: int, count: int) -> NDArray[np.float32]:
        """Return zeros, shape (count,)."""
        return np.zeros(count, dtype=np.float32)


def conversion_faults(model: Checkpoint, target: str) -> Iterator[Fault]:
    """Yield why a model cannot be the architecture `target` exactly, told before it is made."""
    config, where = model.config, model.name
    kind = config.get("model_type")
    if kind not in SOURCES:
        known = ", ".join(SOURCES)
        yield Fault(where, f"has model_type {kind!r}; exactly converted are: {known}")
        return
    if model.overlays:
        problem = "is made while it is read (an adapter on a base, or a packed model)"
        yield Fault(where, f"{problem}; merge it into a folder first, and convert that")
        return
    if "auto_map" in config:
        yield Fault(where, "brings code of its own (`auto_map`), which may compute anything")
    if missing := [key for key in _SAID if type(config.get(key)) not in (int, float)]:
        told = ", ".join(missing)
        yield Fault(where, f"does not say {told} in config.json, and classes have other defaults")
    window = config.get("sliding_window", None if kind in ("llama", "mixtral") else 4096)
    if kind == "qwen2" and not config.get("use_sliding_window", False):
        window = None
    if window is not None or "sliding_attention" in (config.get("layer_types") or ()):
        problem = "attends within a sliding window (`sliding_window`), and other classes do not so"
        yield Fault(where, f"{problem}; where texts are shorter anyway, set it to null yourself")
    yield from _rope_faults(model)
    if config.get("mlp_bias"):
        yield Fault(where, "has biases in its MLP (`mlp_bias`), which no other class has")
    if kind == "mixtral":
        counts = [config.get(key) for key in ("num_local_experts", "num_experts_per_tok")]
        if counts != [1, 1]:
            problem = f"has {counts[0]} moe_experts, {counts[1]} for each token; only 1 of 1"
            yield Fault(where, f"{problem} computes what a dense model does")
    yield from _tensor_faults(model, target)


def _rope_faults(model: Checkpoint) -> Iterator[Fault]:
    config = model.config
    table: Any = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(table, Mapping):
        yield Fault(model.name, "says nothing of its rotary embedding that can be read")
        return
    rope = cast("Mapping[str, Any]", table)
    if "rope_theta" not in config and "rope_theta" not in rope:
        yield Fault(
            model.name, "does not say `rope_theta` in config.json, and classes differ in it"
        )
    name = rope.get("rope_type", rope.get("type", "default"))
    if name not in _ROPES:
        problem = f"has a rotary embedding of kind {name!r}; all classes know {', '.join(_ROPES)}"
        yield Fault(model.name, problem)
    partial = config.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        yield Fault(model.name, f"turns a share of {partial} of each head; others turn all of it")


def _tensor_faults(model: Checkpoint, target: str) -> Iterator[Fault]:
    plain = _plain(model)
    if plain is None:
        yield Fault(model.name, "has moe_experts or fused projections that are not whole")
        return
    odd = [name for name, entry in plain.items() if not _PARTS.fullmatch(name)
           and not is_buffer(name, entry)]  # fmt: skip
    if odd:
        hint = " (queries and keys that are normed)" if "_norm" in odd[0] else ""
        yield Fault(model.name, f"has '{odd[0]}'{hint}, which {target} has no place for")
    biases = [name for name in plain if name.endswith(".bias")]
    outputs = [name for name in biases if not _BIASES.search(name)]
    if target != "llama":
        dropped = outputs if target == "qwen2" else biases
        known = {name: _is_zero(model, name, plain[name]) for name in dropped}
        full = [name for name in dropped if known[name] is False]
        unknown = [name for name in dropped if known[name] is None]
        if unknown and not full:
            problem = f"has '{unknown[0]}', of which nobody knows whether it is zero before the"
            way = "document that merges it is: write that result first, and convert it then"
            yield Fault(model.name, f"{problem} {way}")
        if full:
            yield Fault(
                model.name,
                f"has '{full[0]}', which is not zero, and {target} has no such bias"
                + ("; `convert: llama` keeps it" if target != "llama" else ""),
            )


def converted(model: Checkpoint, target: str) -> Checkpoint:
    """Return a model without `conversion_faults` as the architecture `target`."""
    plain = _plain(model)
    assert plain is not None  # told by conversion_faults
    tensors = {name: each for name, each in plain.items() if not is_buffer(name, each)}
    overlays: dict[str, TensorSource] = {}
    left_out = {
        **{name: "a buffer that loading recomputes" for name in plain if name not in tensors},
        **{name: _ONLY_ONE for name in model.tensors if target != "mixtral" and _GATE.search(name)},
    }
    kept = any(name.endswith(".bias") for name in tensors) if target == "llama" else False

    def zeros(name: str, shape: tuple[int, ...], like: TensorEntry) -> None:
        if name not in tensors:
            overlays[name] = Zeros(model.name, like.dtype, shape)
            tensors[name] = TensorEntry(like.dtype, shape, like.file, like.offset, 0)

    layers = [found["at"] for name in list(tensors) if (found := _LAYER.fullmatch(name))]
    for name in list(tensors):
        if name.endswith(".bias") and not kept and not (target == "qwen2" and _BIASES.search(name)):
            del tensors[name]
            left_out[name] = f"zeros, which {target} does without"
    for at in layers:
        for part in "qkvo" if kept else "qkv" if target == "qwen2" else "":
            weight = tensors[f"{at}.self_attn.{part}_proj.weight"]
            zeros(f"{at}.self_attn.{part}_proj.bias", weight.shape[:1], weight)
        if target == "mixtral":
            for old, new in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
                entry = tensors.pop(f"{at}.mlp.{old}.weight")
                tensors[f"{at}.block_sparse_moe.experts.0.{new}.weight"] = entry
            gate = f"{at}.block_sparse_moe.gate.weight"
            zeros(gate, (1, int(model.config["hidden_size"])), entry)
    config = _config(model.config, target, kept)
    return dataclasses.replace(
        model,
        tensors=tensors,
        overlays=overlays,
        config=config,
        left_out={**model.left_out, **left_out},
    )


def _config(config: Mapping[str, Any], target: str, biases: bool) -> dict[str, Any]:
    tokens = _TOKENS if config["model_type"] in ("llama", "mistral", "mixtral") else {}
    made: dict[str, Any] = {"architectures": [_CLASSES[target]], "model_type": target}
    made |= {key: config[key] for key in _KEPT if key in config}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        made.setdefault(key, tokens.get(key))
    made["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", False))
    made.setdefault("hidden_act", "silu")
    if target == "llama":
        made |= {"attention_bias": biases, "mlp_bias": False}
    elif target == "qwen2":
        made |= {"use_sliding_window": False, "sliding_window": None}
    else:
        made["sliding_window"] = None
    if target == "mixtral":
        made |= {"num_local_experts": 1, "num_experts_per_tok": 1}
    return made


def _plain(model: Checkpoint) -> dict[str, TensorEntry] | None:
    """A model's tensors by llama's names; None where some are not whole, or are made."""
    kind = str(model.config.get("model_type"))
    if kind == "mixtral":
        single = laid_out(model, LAYOUTS[kind], one_by_one=True)
        names = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
        found: dict[str, TensorEntry] = {}
        for name, entry in single.tensors.items():
            part = re.fullmatch(r"(.+)\.block_sparse_moe\.experts\.0\.(w[123])\.weight", name)
            if part:
                found[f"{part[1]}.mlp.{names[part[2]]}.weight"] = entry
            elif not name.endswith(".block_sparse_moe.gate.weight"):
                found[name] = entry
        return found
    return _split(model) if kind == "phi3" else dict(model.tensors)


def _split(model: Checkpoint) -> dict[str, TensorEntry] | None:
    """Phi 3's fused rows: queries, keys, values; gate, up."""
    config, found = model.config, dict[str, TensorEntry]()
    heads, groups = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if not isinstance(heads, int) or not isinstance(groups, int):
        return None
    for name, entry in model.tensors.items():
        qkv = name.endswith(".self_attn.qkv_proj.weight")
        if not qkv and not name.endswith(".mlp.gate_up_proj.weight"):
            found[name] = entry
            continue
        rows, width = entry.shape
        size = rows // (heads + 2 * groups)
        counts = (heads * size, groups * size, groups * size) if qkv else (rows // 2, rows // 2)
        if sum(counts) != rows:
            return None
        old = "qkv_proj" if qkv else "gate_up_proj"
        start = entry.offset
        for part, count in zip(("q", "k", "v") if qkv else ("gate", "up"), counts, strict=True):
            nbytes = count * width * ITEM_SIZES[entry.dtype]
            new = TensorEntry(entry.dtype, (count, width), entry.file, start, nbytes)
            found[name.replace(old, f"{part}_proj")] = new
            start += nbytes
    return found


def _is_zero(model: Checkpoint, name: str, entry: TensorEntry) -> bool | None:
    """Whether every value of a stored tensor is zero, of either sign.

    None is not known: the tensor of a result that is not written yet, and is merged of several.
    """
    multiple_of = getattr(model.source, "multiple_of", None)  # of a result that was only planned
    if multiple_of is not None:
        source: TensorSource | None = multiple_of(name)
        while source is not None and not isinstance(source, Stored):
            if isinstance(source, Zeros):
                return True
            source = getattr(source, "own", None)
        if source is None:
            return None
        return _is_zero(source.checkpoint, source.name, source.entry)
    data = read_file(model.source, entry.file, entry.offset, entry.nbytes)
    size = ITEM_SIZES[entry.dtype]
    sign = bytes(data[size - 1 :: size])
    return not any(data[at::size].strip(b"\0") for at in range(size - 1)) and not sign.strip(
        b"\0\x80"
    )


def relaid(model: Checkpoint, one_by_one: bool) -> tuple[Checkpoint, list[Fault]]:
    """Return a mixture of experts in one layout, and what stands against it."""
    layout = layout_of(model.config)
    if layout is None:
        known = ", ".join(LAYOUTS)
        kind = model.config.get("model_type")
        problem = f"has model_type {kind!r}, whose layouts are not known; known: {known}"
        return model, [Fault(model.name, problem)]
    if one_by_one and not layout.one_by_one:
        return model, [Fault(model.name, "is of a family that loaders read fused alone")]
    if faults := axis_faults(model, layout):
        return model, faults
    made = laid_out(model, layout, one_by_one)
    wanted = {"one by one" if one_by_one else "fused"}
    if layouts_in(made, layout) != wanted:
        return model, [Fault(model.name, "has moe_experts that are not whole")]
    return made, []
