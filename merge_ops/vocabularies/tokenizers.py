"""Vocabularies of models as transformers loads them, and the vocabulary of a merge.

As in mergekit 0.1.5: `base` is the base model's, without tokens that its embedding has no row for;
a model's is that model's; `union` is the base's with every other model's tokens behind it, first
their plain tokens, then their added ones. Within these two, tokens come in the order of the recipe
and of their ids (mergekit's order varies from run to run), so equal recipes have equal rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.json_files import JsonFiles, Kept
from merge_ops.checkpoints.vocabulary_forms import files_by_form
from merge_ops.errors import CheckpointError, CompatibilityError, Fault

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
SPECIAL_NAMES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens", "extra_special_tokens",
)  # fmt: skip
SETTINGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer is a model's tokenizer.json, read.

    `document` is the whole of it, `plain` are the plain tokens with their ids, `added` the entries
    of the added tokens.
    """

    document: Mapping[str, Any]
    plain: Mapping[str, int]
    added: Mapping[str, Mapping[str, Any]]

    @cached_property
    def tokens(self) -> Mapping[str, int]:
        """Return every token with its id."""
        return {**self.plain, **{token: entry["id"] for token, entry in self.added.items()}}

    def rewritten(self) -> bytes:
        """Return the bytes of tokenizer.json with these added tokens."""
        added = sorted(self.added.values(), key=lambda entry: entry["id"])
        document = {**self.document, "added_tokens": [dict(entry) for entry in added]}
        return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


# The tokenizers of a merge are few: a base's, and one of each expert that has its own.
_known = Kept[Tokenizer](4)


def read_tokenizer(checkpoint: Checkpoint) -> Tokenizer | None:
    """Read the tokenizer of a model and return it, or None where the model has none at all.

    Raises CheckpointError where there is another kind of tokenizer but no tokenizer.json, or where
    ids in it are not those that loading would give.
    """
    files, place = checkpoint.files, checkpoint.source.location
    if TOKENIZER_FILE not in files:
        other = next(iter(files_by_form(files).values()), None)
        if other is None:
            return None
        raise CheckpointError(
            f"model '{checkpoint.name}': {place} has {other} but no {TOKENIZER_FILE}, which a"
            " merged vocabulary needs; convert it with transformers:"
            " AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    try:
        return _read(checkpoint.json_files)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"{place}/{TOKENIZER_FILE}: is no tokenizer that transformers can load"
            f" ({type(error).__name__}: {error}); restore the file from its source"
        ) from error


def _read(files: JsonFiles) -> Tokenizer:
    """The tokenizer in files; the same one for equal bytes."""
    digests = tuple(files.digest(file) for file in (TOKENIZER_FILE, CONFIG_FILE) if file in files)
    known = _known.get(digests)
    if known is not None:
        return known
    config: Mapping[str, Any] = files.read(CONFIG_FILE) if CONFIG_FILE in files else {}
    return _known.keep(digests, tokenizer_of(files.read(TOKENIZER_FILE), config))


def tokenizer_of(document: Mapping[str, Any], config: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that a tokenizer.json and a tokenizer_config.json describe.

    Raises one of ValueError, LookupError, TypeError, AttributeError and OverflowError where they
    describe none.
    """
    plain = _plain_tokens(document["model"]["vocab"])
    _check_merges(document["model"])
    declared = cast(list[dict[str, Any]], document.get("added_tokens") or [])
    return Tokenizer(document, plain, _added_tokens(plain, [*declared, *_of_config(config)]))


def _plain_tokens(vocab: Mapping[str, int] | Sequence[Sequence[Any]]) -> dict[str, int]:
    if isinstance(vocab, Mapping):
        return {str(token): int(number) for token, number in vocab.items()}
    return {str(pair[0]): number for number, pair in enumerate(vocab)}  # unigram: [[token, score]]


def _check_merges(described: Mapping[str, Any]) -> None:
    """Merges of a BPE tokenizer are pairs of tokens: two strings, or one with a space between."""
    for each in described["merges"] if described.get("type") == "BPE" else ():
        pair = each.split(" ") if isinstance(each, str) else each
        if not isinstance(pair, list) or list(map(type, cast(list[Any], pair))) != [str, str]:
            raise ValueError(f"the merge {str(each)[:50]!r} is no pair of tokens")


def _added_tokens(
    plain: Mapping[str, int], entries: Sequence[Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Added tokens with the ids that loading gives them, whatever the file says."""
    added: dict[str, Mapping[str, Any]] = {}
    following = len(plain)
    for entry in entries:
        token = str(entry["content"])
        if token in added:
            continue
        number = plain.get(token, following)
        if entry.get("id", number) != number:
            raise ValueError(
                f"the added token {token!r} has id {entry['id']}, but loads as {number}: ids of"
                " added tokens follow the vocabulary without gaps"
            )
        following = max(following, number + 1)
        added[token] = added_entry(token, number, entry)
    return added


def added_entry(token: str, number: int, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return one entry of `added_tokens`; a token without settings is text like any other."""
    special = bool(entry.get("special"))
    usual = dict.fromkeys(SETTINGS, False) | {"special": special, "normalized": not special}
    settings = {name: bool(entry.get(name, usual[name])) for name in SETTINGS}
    return {"id": number, "content": token, **settings}


def _of_config(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Tokens that tokenizer_config.json adds while loading, in the order of loading."""
    decoder = cast(dict[str, dict[str, Any]], config.get("added_tokens_decoder") or {})
    for number in sorted(decoder, key=int):
        yield decoder[number]
    for name in SPECIAL_NAMES:
        value = config.get(name)
        listed = cast(list[Any], value) if isinstance(value, list) else [value]
        for each in listed:
            if isinstance(each, dict):
                yield {**cast(dict[str, Any], each), "special": True}
            elif isinstance(each, str) and each:
                yield {"content": each, "special": True}


def without_unused(tokenizer: Tokenizer, rows: int, model: str) -> Tokenizer:
    """Return the tokenizer without the tokens that an embedding of `rows` rows lacks.

    Raises CompatibilityError where a plain token would have to go and the tokenizer is no BPE.
    """
    unused = {token for token, number in tokenizer.tokens.items() if number >= rows}
    if not unused:
        return tokenizer
    added = {token: entry for token, entry in tokenizer.added.items() if token not in unused}
    if unused.isdisjoint(tokenizer.plain):
        return Tokenizer(tokenizer.document, tokenizer.plain, added)
    plain = {token: number for token, number in tokenizer.plain.items() if token not in unused}
    described = cast(dict[str, Any], tokenizer.document["model"])
    if described.get("type") != "BPE":
        problem = f"has {len(unused)} tokens without a row in its embedding ({rows} rows, first:"
        problem += f" {min(unused)!r}), which can be left out of a BPE tokenizer only, not of"
        problem += f" {described.get('type')}; give it an embedding that is as long"
        raise CompatibilityError("merged vocabulary", [Fault(model, problem)])
    merges = [each for each in described["merges"] if _is_kept(each, unused)]
    changed = {**described, "vocab": plain, "merges": merges}
    return Tokenizer({**tokenizer.document, "model": changed}, plain, added)


def _is_kept(merge: str | Sequence[str], unused: set[str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return unused.isdisjoint((left, right, left + right))


def union(base: Tokenizer, others: Sequence[tuple[Tokenizer, int]]) -> Tokenizer:
    """Return the tokenizer with the base's tokens, then those of the others in their order.

    `others` holds each tokenizer with the rows of its embedding; tokens without a row are left out.
    A token that any model has as an added one is added, with the settings of the first such model.
    """
    entries: dict[str, Mapping[str, Any]] = dict(base.added)
    for other, rows in others:
        for token, entry in _by_id(other.added):
            if entry["id"] < rows:
                entries.setdefault(token, entry)
    plain: list[str] = []
    for other, rows in others:
        for token, number in sorted(other.plain.items(), key=lambda pair: pair[1]):
            if number < rows and token not in base.plain and token not in entries:
                plain.append(token)
    return with_tokens(base, [*plain, *entries], entries)


def _by_id(added: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(added.items(), key=lambda pair: pair[1]["id"])


def with_tokens(
    tokenizer: Tokenizer,
    wanted: Sequence[str],
    entries: Mapping[str, Mapping[str, Any]] | None = None,
) -> Tokenizer:
    """Return the tokenizer with the tokens `wanted` added, in this order.

    Tokens that are added already keep their settings. `entries` has the settings of some tokens;
    the others are text like any other.
    """
    added = dict(tokenizer.added)
    plain = tokenizer.plain
    following = max([len(plain), *(entry["id"] + 1 for entry in added.values())])
    for token in wanted:
        if token in added:
            continue
        settings = (entries or {}).get(token, {})
        added[token] = added_entry(token, plain.get(token, following), settings)
        following = max(following, added[token]["id"] + 1)
    return Tokenizer(tokenizer.document, plain, added)
