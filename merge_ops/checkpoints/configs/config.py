"""The config.json of a merged checkpoint: the base's, true to what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.restacking import NewStack, restack
from merge_ops.checkpoints.configs.tie_defaults import KEY, NESTED, always_ties

VOCABULARY_SIZES = ("vocab_size", "padded_vocab_size")
TEXT = "text_config"


def merged_config(
    base: Checkpoint,
    stacks: Sequence[NewStack],
    has_head: bool,
    dtype: str | None,
) -> dict[str, Any]:
    """Return the base's config, changed where the output differs from the base.

    `stacks` are those that slices made: the layer count and what names layers by number follow
    them. An output head that was written (`has_head`) is not tied any more. `dtype` is the dtype of
    the output where all of it has one.
    """
    config = dict(base.config)
    if dtype:
        config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    for stack in stacks:
        config, _ = restack(config, stack)
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
