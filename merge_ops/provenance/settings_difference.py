"""What differs beside the weights: config, tokenizer, chat template, special tokens.

Weights of equal values answer differently where these differ, and no merge of numbers shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.config_levels import paired_levels
from merge_ops.checkpoints.configs.rotary_settings import Rotary, rotary_settings
from merge_ops.checkpoints.names.ties import head_is_embedding
from merge_ops.checkpoints.vocabulary import vocabularies_of
from merge_ops.errors import CheckpointError
from merge_ops.vocabularies.chat_templates import template_of
from merge_ops.vocabularies.fim_tokens import fim_tokens
from merge_ops.vocabularies.special_ids import (
    GENERATION,
    KINDS,
    TOKENIZER_CONFIG,
    named_token,
    side_object,
    stated_ids,
)

ROPE, TIED, SPECIAL, FIM = "rope", "tied embeddings", "special tokens", "FIM tokens"
CONFIG, TOKENIZER, TEMPLATE = "config", "tokenizer", "chat template"
TOPICS = (CONFIG, ROPE, TIED, TOKENIZER, SPECIAL, FIM, TEMPLATE, GENERATION)
"""What a difference of settings may be about."""

# Keys that say nothing of what a model computes or answers.
_OF_THE_FILE = frozenset(
    ("transformers_version", "_name_or_path", "_from_model_config", "_commit_hash", "use_cache")
)
_ROPE_KEYS = re.compile(r"rope|rotary", re.IGNORECASE)
_TIE_KEYS = re.compile(r"(^|\.)tie_")
_SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")
_MOST = 5  # tokens that a difference names; all of them are counted
_LONGEST = 120


@dataclass(frozen=True)
class SettingDifference:
    """A setting difference says what one thing is in `a` and in `b`; None where it is not there.

    `topic` is one of TOPICS, `where` a key, a token's name or a file.
    """

    topic: str
    where: str
    a: Any
    b: Any


def compare_settings(a: Checkpoint, b: Checkpoint) -> list[SettingDifference]:
    """Return what differs between two checkpoints beside their weights, by topic.

    A vocabulary or a template that cannot be read is a difference that says why.
    """
    found = [
        *_config(a, b),
        *_rope(a, b),
        *_ties(a, b),
        *_tokens(a, b),
        *_special(a, b),
        *_template(a, b),
        *_generation(a, b),
    ]
    return sorted(found, key=lambda each: TOPICS.index(each.topic))


def special_tokens(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the ids that the files state for eos, bos and pad, and the tokens that are named."""
    told: dict[str, Any] = {}
    for kind in KINDS:
        told[f"config.json {kind}_token_id"] = stated_ids(checkpoint.config, kind)
        generation = side_object(checkpoint, GENERATION)
        told[f"{GENERATION} {kind}_token_id"] = stated_ids(generation, kind)
    for kind in (*KINDS, "unk"):
        told[f"{TOKENIZER_CONFIG} {kind}_token"] = named_token(checkpoint, kind)
    for name in _SPECIAL_LISTS:
        told[f"{TOKENIZER_CONFIG} {name}"] = side_object(checkpoint, TOKENIZER_CONFIG).get(name)
    return told


def _config(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    ours, theirs = _flat(a.config), _flat(b.config)
    for key in sorted({*ours, *theirs}):
        if ours.get(key) == theirs.get(key) or key.rpartition(".")[2] in _OF_THE_FILE:
            continue
        topic = ROPE if _ROPE_KEYS.search(key) else TIED if _TIE_KEYS.search(key) else CONFIG
        if key.endswith("_token_id"):
            continue  # among the special tokens
        yield SettingDifference(topic, key, _short(ours.get(key)), _short(theirs.get(key)))


def _flat(config: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        where = f"{place}.{key}" if place else str(key)
        if isinstance(value, dict) and value:
            found |= _flat(cast(Mapping[str, Any], value), where)
        else:
            found[where] = value
    return found


def _rope(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    """Rotary embeddings as they work, whichever way they are written."""
    for pair in paired_levels(a.config, b.config):
        ours, theirs = rotary_settings(pair.ours), rotary_settings(pair.theirs)
        for kind in dict.fromkeys((*ours, *theirs)):
            first, second = ours.get(kind), theirs.get(kind)
            if _effect(first) != _effect(second):
                where = " ".join(part for part in ("in effect", kind, pair.place) if part)
                yield SettingDifference(ROPE, where, _effect(first), _effect(second))


def _effect(rotary: Rotary | None) -> dict[str, Any] | None:
    if rotary is None:
        return None
    return {"theta": rotary.theta, "share": rotary.share, "scaling": dict(rotary.scaling)}


def _ties(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    ours, theirs = (_tied(each) for each in (a, b))
    if ours != theirs:
        yield SettingDifference(TIED, "the output head is the input embedding", ours, theirs)


def _tied(checkpoint: Checkpoint) -> bool | str:
    try:
        return head_is_embedding(checkpoint)
    except CheckpointError as error:
        return f"not known: {_short(str(error))}"


def _tokens(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    unread = [_unreadable(each) for each in (a, b)]
    if any(unread):
        yield SettingDifference(TOKENIZER, "cannot be read, and was not compared", *unread)
        return
    ours, theirs = _rows(a), _rows(b)
    if ours == theirs:
        return
    if not ours or not theirs:
        yield SettingDifference(TOKENIZER, "tokens", len(ours) or None, len(theirs) or None)
        return
    gone = [token for token in ours if token not in theirs]
    new = [token for token in theirs if token not in ours]
    moved = [token for token, row in ours.items() if theirs.get(token, row) != row]
    if gone or new:
        yield SettingDifference(TOKENIZER, "tokens of one alone", _named(gone), _named(new))
    if moved:
        first = moved[0]
        yield SettingDifference(
            TOKENIZER,
            f"{len(moved)} tokens with other rows, the first {first!r}",
            ours[first],
            theirs[first],
        )
    fim = {token: (ours.get(token), theirs.get(token)) for token in (*ours, *theirs)}
    for token, (before, after) in fim.items():
        if before != after and fim_tokens([token]):
            yield SettingDifference(FIM, token, before, after)


def _special(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    ours, theirs = special_tokens(a), special_tokens(b)
    for where, value in ours.items():
        if value != theirs[where]:
            yield SettingDifference(SPECIAL, where, _short(value), _short(theirs[where]))
    marked = _marked(a), _marked(b)
    known = _rows(a).keys() & _rows(b).keys()
    for token in sorted(known & (marked[0] ^ marked[1])):
        where = f"{token!r} is no text but a mark"
        yield SettingDifference(SPECIAL, where, token in marked[0], token in marked[1])


def _marked(checkpoint: Checkpoint) -> set[str]:
    """The added tokens that tokenizer.json calls special: decoding may leave them out."""
    entries = side_object(checkpoint, "tokenizer.json").get("added_tokens")
    listed = cast(list[Any], entries) if isinstance(entries, list) else []
    tables = [cast(dict[str, Any], each) for each in listed if isinstance(each, dict)]
    return {str(each.get("content")) for each in tables if each.get("special")}


def _template(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    ours, theirs = (_template_text(each) for each in (a, b))
    if ours != theirs:
        yield SettingDifference(TEMPLATE, "text", _digest(ours), _digest(theirs))


def _template_text(checkpoint: Checkpoint) -> str | None:
    try:
        return template_of(checkpoint)
    except CheckpointError as error:
        return f"not readable: {error}"


def _digest(text: str | None) -> str | None:
    if text is None:
        return None
    digest = blake2b(text.encode(), digest_size=6).hexdigest()
    return f"{len(text)} characters, {digest}"


def _generation(a: Checkpoint, b: Checkpoint) -> Iterator[SettingDifference]:
    ours, theirs = (_flat(side_object(each, GENERATION)) for each in (a, b))
    for key in sorted({*ours, *theirs}):
        if ours.get(key) == theirs.get(key) or key in _OF_THE_FILE or key.endswith("_token_id"):
            continue
        yield SettingDifference(GENERATION, key, _short(ours.get(key)), _short(theirs.get(key)))


def _rows(checkpoint: Checkpoint) -> Mapping[str, int]:
    """The row of each token; nothing where no file tells it, or none that can be read."""
    try:
        for found in vocabularies_of(checkpoint).values():
            return found.all_rows()[0]
    except CheckpointError:  # `_unreadable` says why
        return {}
    return {}


def _unreadable(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a model's vocabulary; None where it can be read, or there is none."""
    try:
        for found in vocabularies_of(checkpoint).values():
            found.all_rows()
            return None
    except CheckpointError as error:
        return str(error)
    return None


def _named(tokens: list[str]) -> str | None:
    if not tokens:
        return None
    first = ", ".join(map(repr, tokens[:_MOST]))
    return f"{len(tokens)}: {first}{' …' if tokens[_MOST:] else ''}"


def _short(value: Any) -> Any:
    """A value as it is, or the beginning of what is too long to be read."""
    if isinstance(value, list | tuple | dict | str):
        text = value if isinstance(value, str) else repr(cast(object, value))
        return text[:_LONGEST] + " …" if len(text) > _LONGEST else cast(object, value)
    return value
