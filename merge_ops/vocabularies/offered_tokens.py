"""Where the new tokens of an extended vocabulary come from: a model, a tokenizer's file, a list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.files.file_bounds import VOCABULARY
from merge_ops.checkpoints.files.strict_json import parse_json_object
from merge_ops.checkpoints.sentencepiece_pieces import text_pieces
from merge_ops.checkpoints.vocabulary_forms import MALFORMED
from merge_ops.errors import CheckpointError
from merge_ops.recipes.structures.vocabulary_step import VocabularyStep
from merge_ops.vocabularies.token_texts import bytes_of, is_byte_piece, spelling_of, text_of
from merge_ops.vocabularies.tokenizers import (
    TOKENIZER_FILE,
    Tokenizer,
    read_tokenizer,
    tokenizer_of,
)

_PIECES = "tokenizer.model"


@dataclass(frozen=True)
class OfferedTokens:
    """Offered tokens are the texts of plain tokens, in order, and added tokens with their settings.

    Of a token for a part of a character there are its bytes. `in_order` says that parts stand
    before the tokens that are made of them, as in a trained BPE.
    """

    place: str
    texts: Sequence[str | bytes]
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    in_order: bool = False


def offered_tokens(step: VocabularyStep, checkpoints: Mapping[str, Checkpoint]) -> OfferedTokens:
    """Return the tokens that a step's source offers, special ones left out.

    Raises CheckpointError where it has no tokenizer that can be read.
    """
    if step.source is None:
        return OfferedTokens("the list", step.tokens)
    if step.model is None:
        return _of_file(Path(step.source).expanduser())
    model = checkpoints[step.model]
    if TOKENIZER_FILE not in model.files and _PIECES in model.files:
        size = model.files[_PIECES]
        place = f"{model.source.location}/{_PIECES}"
        return _of_pieces(place, _read(model.source, _PIECES, size, place))
    tokenizer = read_tokenizer(model)
    if tokenizer is None:
        place = model.source.location
        problem = "has no tokenizer, so it offers no tokens; name one that has, or a tokenizer.json"
        raise CheckpointError(f"model '{model.name}': {place} {problem}")
    return _of_tokenizer(f"{model.source.location}/{TOKENIZER_FILE}", tokenizer)


def _of_file(path: Path) -> OfferedTokens:
    source = FolderSource(path.absolute().parent, only=path.name)
    size = source.sizes().get(path.name)
    if size is None:
        raise CheckpointError(
            f"vocabulary.extend: there is no file {path.absolute()} that may be read; name a"
            " tokenizer.json, a SentencePiece model (.model) or a model"
        )
    data = _read(source, path.name, size, str(path))
    if path.suffix != ".json":
        return _of_pieces(str(path), data)
    document = parse_json_object(str(path), data, VOCABULARY)
    try:
        return _of_tokenizer(str(path), tokenizer_of(document, {}))
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        told = f"is no tokenizer.json ({type(error).__name__}: {error})"
        raise CheckpointError(f"{path}: {told}; name one, or a model") from error


def _read(source: Any, file: str, size: int, place: str) -> bytes:
    if size > VOCABULARY.nbytes:
        told = f"has {size} bytes, and of a vocabulary at most {VOCABULARY.nbytes} are read"
        raise CheckpointError(f"{place}: {told}")
    return read_file(source, file, 0, size)


def _of_pieces(place: str, data: bytes) -> OfferedTokens:
    try:
        pieces, is_bpe = text_pieces(data)
    except MALFORMED as error:
        raise CheckpointError(f"{place}: is no SentencePiece model ({error})") from error
    texts = [text for piece in pieces if (text := text_of(piece, "pieces"))]
    return OfferedTokens(place, texts, in_order=is_bpe)


def _of_tokenizer(place: str, tokenizer: Tokenizer) -> OfferedTokens:
    spelling = spelling_of(tokenizer.document)
    if spelling is None:
        raise CheckpointError(
            f"{place}: neither spells bytes (byte-level) nor writes ▁ for a blank, so the texts of"
            " its tokens are not known; write the new tokens as a list"
        )
    plain = [token for token in tokenizer.plain if token not in tokenizer.added]
    ordered = sorted(plain, key=lambda token: tokenizer.plain[token])
    added = {token: entry for token, entry in tokenizer.added.items() if not entry["special"]}
    texts: list[str | bytes] = []
    for token in ordered:
        text, data = text_of(token, spelling), bytes_of(token, spelling)
        if text is not None:
            texts.append(text)
        elif data and not is_byte_piece(token, spelling):
            texts.append(data)
    is_bpe = tokenizer.document["model"].get("type") == "BPE"
    return OfferedTokens(place, texts, added, is_bpe)
