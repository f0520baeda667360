"""Which row of the embedding each token has, from tokenizer.json or vocab.json."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint, read_json
from merge_ops.errors import CheckpointError


def vocabulary(checkpoint: Checkpoint) -> Mapping[str, int] | None:
    """Token → row, from tokenizer.json or vocab.json; None where the checkpoint has neither."""
    return _vocabulary_of_files(_Reader(checkpoint))


class _Reader:
    """Hashes by identity, so that one checkpoint's vocabulary is read once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._key = (checkpoint.source.location, *sorted(checkpoint.files.items()))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reader) and self.checkpoint is other.checkpoint


_MALFORMED = (ValueError, AttributeError, LookupError, TypeError, OverflowError)


@lru_cache(maxsize=32)
def _vocabulary_of_files(reader: _Reader) -> Mapping[str, int] | None:
    source, files = reader.checkpoint.source, reader.checkpoint.files
    if "tokenizer.json" in files:
        try:
            table = read_json(source, "tokenizer.json", files["tokenizer.json"])
            model = cast(dict[str, Any], table.get("model", {}))
            tokens = _tokens(model.get("vocab"))
            for added in cast(list[dict[str, Any]], table.get("added_tokens") or []):
                tokens[str(added["content"])] = int(added["id"])
        except (CheckpointError, *_MALFORMED):
            return None
        return tokens or None
    if "vocab.json" in files:
        try:
            return _tokens(read_json(source, "vocab.json", files["vocab.json"])) or None
        except (CheckpointError, *_MALFORMED):
            return None
    return None


def _tokens(vocab: object) -> dict[str, int]:
    if isinstance(vocab, dict):
        return {str(token): int(row) for token, row in cast(dict[str, Any], vocab).items()}
    if isinstance(vocab, list):  # unigram: [[token, score], …]
        return {str(pair[0]): row for row, pair in enumerate(cast(list[list[Any]], vocab))}
    return {}
