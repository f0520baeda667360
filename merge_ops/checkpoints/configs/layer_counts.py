"""How many layers a model's config counts, for each stack of layers in its tensor names.

A file may hold more: DeepSeek-V3, GLM-4.5 and their kin number a layer for multi-token prediction
behind the last one that `num_hidden_layers` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.checkpoints.names.depth import CHAINS, layers_of
from merge_ops.checkpoints.names.model_parts import AUDIO, VISION, predicts_further_tokens

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
# How many parts for multi-token prediction follow the layers: DeepSeek-V3, MiMo and GLM-4.5;
# Qwen3-Next and others.
FURTHER_LAYERS = (
    "num_nextn_predict_layers",
    "mtp_num_layers",
    "mtp_num_hidden_layers",
    "num_mtp_layers",
    "num_mtp_modules",
)
_TEXT = ("text_config", "llm_config", "language_config")
_VISION = ("vision_config", "vision_tower_config", "visual_config")
_AUDIO = ("audio_config", "audio_tower_config", "speech_config")
_VISION_COUNTS = ("num_hidden_layers", "depth", "num_layers", "layers", "n_layers")
_AUDIO_COUNTS = ("encoder_layers", *LAYER_COUNTS)
_SINGLE = "single_transformer_blocks"
_OF_DIFFUSION = {word for chain in CHAINS for word in chain} - {"transformer_blocks"}


@dataclass(frozen=True)
class LayerCount:
    """A layer count is a number of layers and its place in the config: sections, then the key."""

    sections: tuple[str, ...]
    key: str
    layers: int


def layer_count(config: Mapping[str, Any], stack: str) -> LayerCount | None:
    """Return what a config says about the number of layers of a stack, or None.

    Text stacks are counted at the top level or in `text_config`, vision stacks in `vision_config`,
    encoder and decoder by keys of their own (T5, BART, Whisper) or in sections of their own.
    """
    return _find(config, stack.split("."), ())


def counted_layers(config: Mapping[str, Any], names: Iterable[str]) -> Mapping[str, int]:
    """Return the counted layers of each stack that has more layers than its config counts."""
    stacks = layers_of(name for name in names if not predicts_further_tokens(name))
    takers: dict[LayerCount, list[str]] = {}
    for stack in stacks:
        found = layer_count(config, stack)
        if found is not None:
            takers.setdefault(found, []).append(stack)
    longer: dict[str, int] = {}
    for count, names_of_stacks in takers.items():
        if any(stacks[stack] == count.layers for stack in names_of_stacks):
            continue  # this one is meant; the others are counted by a key that is not known here
        stack = _outermost(names_of_stacks)
        if stack is not None and stacks[stack] > count.layers:
            longer[stack] = count.layers
    return longer


def further_layers(config: Mapping[str, Any], stack: str) -> int:
    """Return how many layers for multi-token prediction a config says to follow a stack."""
    found = layer_count(config, stack)
    section = section_of(config, found.sections) if found else config
    values = [_number(part, key) for part in (section, config) for key in FURTHER_LAYERS]
    return max((value for value in values if value is not None), default=0)


def section_of(config: Mapping[str, Any], sections: Iterable[str]) -> Mapping[str, Any]:
    """Return a section of a config by the keys that lead to it."""
    for key in sections:
        config = config[key]
    return config


def _find(
    config: Mapping[str, Any], words: Sequence[str], sections: tuple[str, ...]
) -> LayerCount | None:
    inner = f"{words[0]}_config"  # `thinker.model.layers` is described in `thinker_config`
    if _section(config, inner) is not None and len(words) > 1:
        return _find(config[inner], words[1:], (*sections, inner))
    if words[-1] in _OF_DIFFUSION or ".".join(words[-2:]) in _OF_DIFFUSION:
        keys = ("num_single_layers",) if words[-1] == _SINGLE else ()
        return _first(config, keys, sections)
    if VISION.intersection(words):
        return _nested(config, _VISION, _VISION_COUNTS, sections)
    if AUDIO.intersection(words):
        return _nested(config, _AUDIO, _AUDIO_COUNTS, sections)
    for side in ("encoder", "decoder"):
        if side in words:
            if _section(config, side) is not None:
                return _find(
                    config[side], words[words.index(side) + 1 :] or words, (*sections, side)
                )
            own = _first(config, (f"{side}_layers", f"num_{side}_layers"), sections)
            if own is not None:
                return own
    return _first(config, LAYER_COUNTS, sections) or _nested(config, _TEXT, LAYER_COUNTS, sections)


def _first(
    config: Mapping[str, Any], keys: Iterable[str], sections: tuple[str, ...]
) -> LayerCount | None:
    for key in keys:
        number = _number(config, key)
        if number:
            return LayerCount(sections, key, number)
    return None


def _nested(
    config: Mapping[str, Any],
    inner: Iterable[str],
    keys: Iterable[str],
    sections: tuple[str, ...],
) -> LayerCount | None:
    for name in inner:
        section = _section(config, name)
        if section is not None:
            return _first(section, keys, (*sections, name))
    return None


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    value = config.get(name)
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else None


def _number(config: Mapping[str, Any], key: str) -> int | None:
    """A count of layers; what strangers wrote may be anything."""
    value = config.get(key)
    sound = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if sound else None


def _outermost(stacks: list[str]) -> str | None:
    """The stack with the shortest name, None where two are as short."""
    length = min(stack.count(".") for stack in stacks)
    shortest = [stack for stack in stacks if stack.count(".") == length]
    return shortest[0] if len(shortest) == 1 else None
