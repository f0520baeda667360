"""The forms that a vocabulary is kept in, and the row of each token in each of them.

    tokenizer.json           `model.vocab` and `added_tokens`
    vocab.json               {token: row}; added_tokens.json beside it (GPT-2, Qwen)
    vocab.txt                one token a line (BERT)
    tokenizer.model, …       SentencePiece: piece n is row n (Llama, T5, ChatGLM, Baichuan)
    *.tiktoken               a token in base64 and its rank a line (Qwen 1; Llama 3 as *.model)
    tekken.json              special tokens, then tokens in base64 by rank (Mistral)

Tokens of bytes are spelt as byte-level tokenizers spell them in tokenizer.json, so that forms can
be compared with one another.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from merge_ops.checkpoints.sentencepiece_pieces import MAX_PIECES, sentencepiece_pieces

TOKENIZER, VOCAB, LINES = "tokenizer.json", "vocab.json", "vocab.txt"
PIECES, RANKS, TEKKEN = "SentencePiece", "tiktoken", "tekken.json"
FORMS = (TOKENIZER, VOCAB, LINES, PIECES, RANKS, TEKKEN)
"""In the order in which transformers prefers them."""
OF_JSON = (TOKENIZER, VOCAB, TEKKEN)

MALFORMED = (ValueError, AttributeError, LookupError, TypeError, OverflowError, RecursionError)
"""What `rows_in` raises for a file that holds no vocabulary of its form."""

_USUAL = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "ice_text.model")
_RANK = re.compile(rb"([A-Za-z0-9+/]+=*) (\d{1,9})\r?")


def files_by_form(files: Iterable[str]) -> dict[str, str]:
    """Return the file of each form that there is among the names of a folder's files."""
    names = sorted(name for name in files if "/" not in name)
    found = {form: form for form in (TOKENIZER, VOCAB, LINES, TEKKEN) if form in names}
    pieces = [name for name in names if name.endswith((".model", ".spm"))]
    for form, candidates in (
        (PIECES, [*(name for name in _USUAL if name in pieces), *pieces]),
        (RANKS, [name for name in names if name.endswith(".tiktoken")]),
    ):
        if candidates:
            found[form] = candidates[0]
    return {form: found[form] for form in FORMS if form in found}


def rows_in(form: str, content: Any) -> dict[str, int]:
    """Return the row of each token in a file of this form.

    `content` is the JSON object in a file of the forms in `OF_JSON`, and the bytes of any other.
    Raises one of `MALFORMED` where the file is none, or names no token.
    """
    rows = _READERS[form](content)
    if not rows:
        raise ValueError("it names no token")
    return rows


def _tokenizer(table: Mapping[str, Any]) -> dict[str, int]:
    tokens = _tokens(cast(dict[str, Any], table.get("model", {})).get("vocab"))
    for added in cast(list[dict[str, Any]], table.get("added_tokens") or []):
        tokens[str(added["content"])] = int(added["id"])
    return tokens


def _tokens(vocab: object) -> dict[str, int]:
    if isinstance(vocab, dict):
        return {str(token): int(row) for token, row in cast(dict[str, Any], vocab).items()}
    if isinstance(vocab, list):  # unigram: [[token, score], …]
        return {str(pair[0]): row for row, pair in enumerate(cast(list[list[Any]], vocab))}
    return {}


def _few_lines(data: bytes) -> bytes:
    """The bytes of a file of lines, unless it has more than any vocabulary. Raises ValueError."""
    if data.count(b"\n") > MAX_PIECES:
        raise ValueError(f"more than {MAX_PIECES} lines")
    return data


def _lines(data: bytes) -> dict[str, int]:
    lines = _few_lines(data).decode("utf-8").split("\n")
    if lines[-1] == "":
        lines.pop()
    return {line.rstrip("\r"): row for row, line in enumerate(lines)}


def _pieces(data: bytes) -> dict[str, int]:
    if _RANK.match(data[:512]):  # Llama 3 calls its ranks tokenizer.model
        return _ranks(data)
    return {piece: row for row, piece in enumerate(sentencepiece_pieces(data))}


def _ranks(data: bytes) -> dict[str, int]:
    tokens: dict[str, int] = {}
    for line in filter(None, _few_lines(data).split(b"\n")):
        pair = _RANK.fullmatch(line)
        if pair is None:
            raise ValueError(f"the line {line[:50]!r} is no token in base64 and a rank")
        tokens[_spelt(pair[1])] = int(pair[2])
    return tokens


def _tekken(table: Mapping[str, Any]) -> dict[str, int]:
    config = cast(dict[str, Any], table.get("config") or {})
    special = cast(list[dict[str, Any]], table.get("special_tokens") or [])
    first = int(config.get("default_num_special_tokens") or len(special))
    whole = int(config.get("default_vocab_size") or 0)
    tokens = {str(each["token_str"]): int(each["rank"]) for each in special}
    for each in cast(list[dict[str, Any]], table["vocab"]):
        row = first + int(each["rank"])
        if not whole or row < whole:
            tokens[_spelt(str(each["token_bytes"]).encode())] = row
    return tokens


_READERS: Mapping[str, Callable[[Any], dict[str, int]]] = {
    TOKENIZER: _tokenizer,
    VOCAB: _tokens,
    LINES: _lines,
    PIECES: _pieces,
    RANKS: _ranks,
    TEKKEN: _tekken,
}


def _byte_spelling() -> dict[int, str]:
    """The letter that byte-level tokenizers write for each byte (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown}
    return letters | {byte: chr(256 + number) for number, byte in enumerate(hidden)}


BYTE_LETTERS = _byte_spelling()
"""The letter that byte-level tokenizers write for each byte."""


def _spelt(encoded: bytes) -> str:
    return base64.b64decode(encoded, validate=True).decode("latin-1").translate(BYTE_LETTERS)
