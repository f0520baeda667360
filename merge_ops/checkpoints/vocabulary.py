"""Which row of the embedding each token has, from tokenizer.json or vocab.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.json_files import JsonFiles, Kept
from merge_ops.errors import CheckpointError

FILES = ("tokenizer.json", "vocab.json")
_MALFORMED = (ValueError, AttributeError, LookupError, TypeError, OverflowError)
# Experts are compared with their base one after the other: its vocabulary and each of theirs, and
# the two of a second merge.
_known = Kept[Mapping[str, int]](4)


def vocabulary(checkpoint: Checkpoint) -> Mapping[str, int] | None:
    """Return the row of each token, from tokenizer.json or vocab.json.

    It is None where the checkpoint has no such file, or none that can be used.
    """
    file = _file_of(checkpoint)
    if file is None:
        return None
    try:
        digest = checkpoint.json_files.digest(file)
    except CheckpointError:
        return None
    known = _known.get((digest, file))
    if known is None:
        known = _known.keep((digest, file), _vocabulary_in(checkpoint.json_files, file))
    return known or None


def equal_vocabularies(one: Checkpoint, other: Checkpoint) -> bool:
    """Return whether two checkpoints give every token the same row.

    They count as equal where one of them has no vocabulary. Files of equal bytes are not parsed.
    """
    files = _file_of(one), _file_of(other)
    if None in files:
        return True
    if files[0] == files[1]:
        try:
            digests = [each.json_files.digest(str(files[0])) for each in (one, other)]
        except CheckpointError:
            return True  # of which nothing is known
        if digests[0] == digests[1]:
            return True
    ours, theirs = vocabulary(one), vocabulary(other)
    return ours is None or theirs is None or ours == theirs


def _file_of(checkpoint: Checkpoint) -> str | None:
    return next((file for file in FILES if file in checkpoint.files), None)


def _vocabulary_in(files: JsonFiles, file: str) -> Mapping[str, int]:
    """The vocabulary in a file; empty where it is malformed."""
    try:
        table = files.read(file)
        if file == "vocab.json":
            return _tokens(table)
        tokens = _tokens(cast(dict[str, Any], table.get("model", {})).get("vocab"))
        for added in cast(list[dict[str, Any]], table.get("added_tokens") or []):
            tokens[str(added["content"])] = int(added["id"])
    except (CheckpointError, *_MALFORMED):
        return {}
    return tokens


def _tokens(vocab: object) -> dict[str, int]:
    if isinstance(vocab, dict):
        return {str(token): int(row) for token, row in cast(dict[str, Any], vocab).items()}
    if isinstance(vocab, list):  # unigram: [[token, score], …]
        return {str(pair[0]): row for row, pair in enumerate(cast(list[list[Any]], vocab))}
    return {}
