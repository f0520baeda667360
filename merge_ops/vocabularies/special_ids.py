"""The ids that begin, end and pad a text: what a model says of them in its several files.

config.json and generation_config.json have ids, tokenizer_config.json has tokens by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.config_levels import TEXT_LEVELS
from merge_ops.errors import CheckpointError

GENERATION, TOKENIZER_CONFIG = "generation_config.json", "tokenizer_config.json"
KINDS = ("eos", "bos", "pad")


def side_object(checkpoint: Checkpoint, file: str) -> Mapping[str, Any]:
    """Return the JSON object in a file beside the weights, empty where there is none to read."""
    try:
        return checkpoint.json_files.read(file) if file in checkpoint.json_files else {}
    except CheckpointError:
        return {}


def listed(value: object) -> tuple[int, ...]:
    """Return the ids of a config's value: one id, a list of them, or nothing."""
    values = cast(Sequence[Any], value) if isinstance(value, list) else [value]
    return tuple(each for each in values if type(each) is int)


def stated_ids(config: Mapping[str, Any], kind: str) -> Any:
    """Return the value of `eos_token_id` (or of `bos`, `pad`), None where it holds no id.

    It is looked for at the top and in the level of the language model.
    """
    levels = [config, *(config.get(name) for name in TEXT_LEVELS)]
    for level in levels:
        if isinstance(level, Mapping):
            value = cast(Mapping[str, Any], level).get(f"{kind}_token_id")
            if listed(value):
                return value
    return None


def named_token(checkpoint: Checkpoint, kind: str) -> str | None:
    """Return the token that tokenizer_config.json calls `eos_token` (or `bos`, `pad`)."""
    value = side_object(checkpoint, TOKENIZER_CONFIG).get(f"{kind}_token")
    token = cast(Mapping[str, Any], value).get("content") if isinstance(value, dict) else value
    return token if isinstance(token, str) and token else None


def ids_of_tokenizer(donor: Checkpoint, tokens: Mapping[str, int], first: str) -> dict[str, Any]:
    """Return the ids that a model's tokenizer brings along, as {`eos_token_id`: value, …}.

    They are the donor's own, of the file `first` or of the other one. Where its tokenizer names a
    token that is not among these, that token's id in `tokens` holds.
    """
    files = {"config.json": donor.config, GENERATION: side_object(donor, GENERATION)}
    ordered = [files[first], *(config for file, config in files.items() if file != first)]
    brought: dict[str, Any] = {}
    for kind in KINDS:
        value = next(filter(listed, (stated_ids(config, kind) for config in ordered)), None)
        named = tokens.get(named_token(donor, kind) or "")
        if named is not None and named not in listed(value):
            value = named
        if value is not None:
            brought[f"{kind}_token_id"] = value
    return brought


def with_ids(config: Mapping[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with these ids, on every level that has the key.

    The end of text is stated in any case: without it a model never stops.
    """
    changed = _replaced(config, ids)
    if "eos_token_id" in ids and stated_ids(changed, "eos") is None:
        changed["eos_token_id"] = ids["eos_token_id"]
    return changed


def _replaced(config: Mapping[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
    changed = {**config, **{key: value for key, value in ids.items() if key in config}}
    for name in TEXT_LEVELS:
        text = config.get(name)
        if isinstance(text, dict):
            changed[name] = _replaced(cast(Mapping[str, Any], text), ids)
    return changed
