"""The config.json of a merged checkpoint: the base's, true to what was written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.tie_defaults import KEY, NESTED, always_ties

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
VOCABULARY_SIZES = ("vocab_size", "padded_vocab_size")
_PER_LAYER = re.compile(r"layer|block|heads|intermediate|ffn|window")
TEXT = "text_config"


def merged_config(
    base: Checkpoint,
    layers: Sequence[tuple[Checkpoint, int]] | None,
    has_head: bool,
    dtype: str | None,
) -> dict[str, Any]:
    """Return the base's config, changed where the output differs from the base.

    `layers` is given for a new stack: for each layer the model and the layer number it comes from.
    The layer count and lists with an entry for each layer (`layer_types`, …) follow it. An output
    head that was written (`has_head`) is not tied any more. `dtype` is the dtype of the output
    where all of it has one.
    """
    config = dict(base.config)
    if dtype:
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    if layers is not None and config:
        _restack(config, layers)
    if has_head and base.ties_embeddings:
        config = untied(config)
    return config


def with_vocabulary(config: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Return the config of a model whose embedding has `rows` rows.

    Every count of the rows in the config is changed.
    """
    changed = {**config, **{key: rows for key in VOCABULARY_SIZES if key in config}}
    text = config.get(TEXT)
    if isinstance(text, dict):
        changed[TEXT] = with_vocabulary(cast(dict[str, Any], text), rows)
    return changed


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a model whose output head is a tensor of its own.

    Models of encoder and decoder keep theirs: in them the key ties the input embeddings as well, or
    scales the output (T5). Where such a head is stored, they load it.
    """
    if config.get("is_encoder_decoder") or always_ties(config):
        return dict(config)
    changed = {**config, KEY: False}
    for part in NESTED:
        if isinstance(config.get(part), dict):
            changed[part] = untied(cast(dict[str, Any], config[part]))
    return changed


def _restack(config: dict[str, Any], layers: Sequence[tuple[Checkpoint, int]]) -> None:
    nested = _count_key(config) is None and isinstance(config.get(TEXT), dict)
    part = dict(config[TEXT]) if nested else config
    key = _count_key(part)
    if key is None:
        return
    before = part[key]
    for name, value in part.items():
        if _is_per_layer(name, value, before):
            part[name] = [_entry(model, name, layer, value) for model, layer in layers]
    part[key] = len(layers)
    if nested:
        config[TEXT] = part


def _count_key(config: Mapping[str, Any]) -> str | None:
    return next((key for key in LAYER_COUNTS if isinstance(config.get(key), int)), None)


def _is_per_layer(name: str, value: object, layers: int) -> bool:
    return (
        isinstance(value, list)
        and len(cast(list[Any], value)) == layers
        and _PER_LAYER.search(name) is not None
    )


def _entry(model: Checkpoint, name: str, layer: int, otherwise: Sequence[Any]) -> Any:
    """What the model that a layer comes from says of it; if nothing, what the base says."""
    config = model.config
    if name not in config and isinstance(config.get(TEXT), dict):
        config = cast(Mapping[str, Any], config[TEXT])
    said: Any = config.get(name)
    own = cast(Sequence[Any], said) if isinstance(said, list) and said else otherwise
    return own[min(layer, len(own) - 1)]
