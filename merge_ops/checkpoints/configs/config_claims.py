"""Sizes that a config claims, compared with the tensors before anything is built from them.

A config of one line may claim a hundred thousand layers, or a vocabulary of a billion tokens, for
weights of a few kilobytes; what loads the model believes it and builds that first. No architecture
is known here. What is refused has no tensor that could explain it:

- a count that is no whole number from 0 on;
- a width (`hidden_size`, `vocab_size`, `num_experts`, …) many times the longest side of any tensor;
- a `hidden_size` of which no tensor has a side, nor a multiple;
- layers more than three times as many as the tensors are numbered for.

Tensors that are all empty are the placeholders of ZeRO-3, which others refuse with the way out.

Finer disagreements are for whoever loads the model: `plans.expected_tensors` asks transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from merge_ops.checkpoints.configs.layer_counts import LAYER_COUNTS, layer_count
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.names.depth import layers_of
from merge_ops.checkpoints.names.tie_names import is_input
from merge_ops.errors import quoted

WIDTHS = frozenset(
    (
        "vocab_size", "padded_vocab_size", "hidden_size", "d_model", "n_embd", "embed_dim",
        "intermediate_size", "d_ff", "ffn_dim", "n_inner", "ffn_hidden_size", "embedding_size",
        "word_embed_proj_dim", "moe_intermediate_size", "shared_expert_intermediate_size",
        "encoder_ffn_dim", "decoder_ffn_dim", "num_attention_heads", "num_key_value_heads",
        "n_head", "num_heads", "head_dim", "num_experts", "num_local_experts", "n_routed_experts",
        "moe_num_experts", "n_shared_experts", "type_vocab_size", "n_positions", "n_ctx",
        "state_size", "conv_kernel", "q_lora_rank", "kv_lora_rank", "num_codebooks",
    )
)  # fmt: skip
"""Keys whose value is a side of some tensor, or divides one."""
LAYERS = frozenset(
    (*LAYER_COUNTS, "encoder_layers", "decoder_layers", "num_encoder_layers",
     "num_decoder_layers", "num_nextn_predict_layers", "mtp_num_layers", "num_hidden_groups")
)  # fmt: skip
SLACK = 4
"""How many times the longest side of any tensor a width may be."""
LAYERS_A_TENSOR = 8
"""Layers that one tensor may stand for, where layers share tensors and their names tell nothing."""
MOST_COUNTED = 3
"""Layers that a config may count for one that is numbered."""
HOLLOW = 1_000_000
MOST = 1 << 31
_POSITIONS = frozenset(("max_position_embeddings", "max_sequence_length", "seq_length"))
_SECTIONS = 2
_HIDDEN = ("hidden_size", "d_model", "n_embd")


def claim_faults(
    at: str, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]
) -> list[str]:
    """Return what a config claims that its tensors cannot explain, as whole sentences."""
    if not config or not tensors:
        return []
    sides = {side for entry in tensors.values() for side in entry.shape}
    hollow = all(entry.count == 0 for entry in tensors.values())
    longest = HOLLOW if hollow else max(sides, default=1)
    faults: list[str] = []
    for where, key, value in _numbers(config, (), 0):
        named = f"{at}/config.json: {'.'.join((*where, key))} is {quoted(value)}"
        if type(value) is not int or value < 0:
            faults.append(f"{named}; it must be a whole number from 0 on")
        elif key in _POSITIONS and value > MOST:
            faults.append(f"{named}; at most {MOST} are possible")
        elif key in WIDTHS and value > SLACK * max(longest, 1):
            faults.append(
                f"{named}, and the longest side of any tensor is {longest}; the config belongs to"
                " other weights"
            )
        elif key in LAYERS and value > LAYERS_A_TENSOR * len(tensors):
            faults.append(
                f"{named}, and there are {len(tensors)} tensors; the config belongs to other"
                " weights"
            )
    if faults or hollow:
        return faults
    whole = any(is_input(name) and len(entry.shape) == 2 for name, entry in tensors.items())
    of_width = _hidden_faults(at, config, sides) if whole else ()
    return [*_layer_faults(at, config, tensors), *of_width]


def _numbers(
    config: Mapping[str, Any], where: tuple[str, ...], level: int
) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Every known count of a config and its sections, each of a list by itself; no null."""
    known = WIDTHS | LAYERS | _POSITIONS
    for key, value in config.items():
        if key in known:
            listed = cast("list[Any]", value) if isinstance(value, list) else [value]
            for each in listed:
                if each is not None and not isinstance(each, dict | list):
                    yield where, key, each
        elif isinstance(value, dict) and key.endswith("_config") and level < _SECTIONS:
            yield from _numbers(cast("dict[str, Any]", value), (*where, key), level + 1)


def _layer_faults(
    at: str, config: Mapping[str, Any], tensors: Mapping[str, TensorEntry]
) -> Iterator[str]:
    """Layers that are counted and not there, where no stack has a third as many."""
    most: dict[tuple[str, ...], tuple[int, int]] = {}
    for stack, there in layers_of(tensors).items():
        found = layer_count(config, stack)
        if found is not None:
            place = (*found.sections, found.key)
            most[place] = found.layers, max(there, most.get(place, (0, 0))[1])
    for place, (claimed, there) in most.items():
        if claimed > MOST_COUNTED * there:
            yield (
                f"{at}/config.json: {'.'.join(place)} is {claimed}, and the tensors are those of"
                f" {there} layers; the config belongs to other weights, or some are missing"
            )


def _hidden_faults(at: str, config: Mapping[str, Any], sides: set[int]) -> Iterator[str]:
    """A width of the model that no tensor has, where the config names its class."""
    if not config.get("model_type"):
        return
    for key in _HIDDEN:
        value = config.get(key)
        if type(value) is int and value > 1 and not any(s and s % value == 0 for s in sides):
            yield (
                f"{at}/config.json: {key} is {value}, and no tensor has a side of that; the config"
                " belongs to other weights"
            )
