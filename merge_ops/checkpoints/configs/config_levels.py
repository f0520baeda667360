"""The levels of a config.json, the top and every config inside it, and which belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

TEXT_LEVELS = ("text_config", "llm_config", "language_config")
"""The names of the level that describes the language model, in different families."""

# Tables of settings, which describe no part of the model.
_NO_LEVELS = frozenset(
    ("rope_scaling", "rope_parameters", "id2label", "label2id", "quantization_config",
     "quantization", "auto_map", "task_specific_params", "compression_config", "generation_config",
     "transformers.js_config")
)  # fmt: skip
_DEEPEST = 6
_PARTS = ("_text", "_vision", "_audio", "_model", "_encoder", "_text_model", "_vision_model")


class Pair(NamedTuple):
    """A pair of levels of two configs that describe the same part of the model.

    `place` is where it stands (`thinker_config.text_config`), empty for the top.
    """

    place: str
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]


def paired_levels(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[Pair]:
    """Yield the levels of two configs that describe the same part of the model.

    A language model's keys stand at the top in one file and in `text_config` in another of the same
    model; these are paired as well.
    """
    if not ours or not theirs:
        return
    levels = _levels(ours), _levels(theirs)
    texts = [_text_level(each) for each in levels]
    if texts[0] != texts[1]:
        flat = [{**each[""], **each[text]} for each, text in zip(levels, texts, strict=True)]
        yield Pair(texts[1] or texts[0], flat[0], flat[1])
    else:
        yield Pair("", ours, theirs)
    for place, level in levels[0].items():
        if place and place in levels[1]:
            yield Pair(place, level, levels[1][place])


def same_part(ours: object, theirs: object) -> bool:
    """Return whether two model types are one, spelt as the whole's and as a part's.

    transformers 5 calls `qwen2_vl_text` what was `qwen2_vl` before.
    """
    if not isinstance(ours, str) or not isinstance(theirs, str):
        return ours == theirs
    return ours == theirs or any(ours + part == theirs or theirs + part == ours for part in _PARTS)


def _levels(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every level by its place, the top as ""."""
    found: dict[str, Mapping[str, Any]] = {"": config}
    newest = dict(found)
    for _ in range(_DEEPEST):
        newest = {
            f"{place}.{key}" if place else key: cast(Mapping[str, Any], value)
            for place, level in newest.items()
            for key, value in level.items()
            if isinstance(value, dict) and key not in _NO_LEVELS
        }
        found |= newest
    return found


def _text_level(levels: Mapping[str, Mapping[str, Any]]) -> str:
    return next((name for name in TEXT_LEVELS if name in levels), "")
