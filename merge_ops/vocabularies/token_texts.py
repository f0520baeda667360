"""The text that a token stands for, and how a tokenizer spells a text in its tokens.

Byte-level tokenizers (GPT-2, Qwen, Llama 3) write a letter for each byte; those that come from
SentencePiece (Llama 2, Mistral, T5) write ▁ for a blank, and have tokens <0x0A> for single bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, cast

from merge_ops.checkpoints.vocabulary_forms import BYTE_LETTERS

Spelling = Literal["byte-level", "pieces"]
BLANK = "▁"
_BYTES = {letter: byte for byte, letter in BYTE_LETTERS.items()}
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_PARTS = ("normalizer", "pre_tokenizer", "decoder")
_LISTS = ("normalizers", "pretokenizers", "decoders")
# Han characters with their extensions and 〇; marks of Chinese texts; forms as wide as these.
_HAN = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff\u3007"
_CHINESE = re.compile(
    rf" ?[{_HAN}\u2014\u2018-\u201d\u2026\u3000-\u3011\u3014-\u301f\uff00-\uffef]+"
)
_KANA = re.compile(r"[\uff66-\uff9f]")


def spelling_of(document: Mapping[str, Any]) -> Spelling | None:
    """Return how the tokenizer of a tokenizer.json spells texts; None where it is not known."""
    parts = [part for name in _PARTS for part in _components(document.get(name))]
    if any(part.get("type") == "ByteLevel" for part in parts):
        return "byte-level"
    for part in parts:
        if part.get("type") == "Metaspace":
            return "pieces" if part.get("replacement", BLANK) == BLANK else None
        if part.get("type") in ("Replace", "Prepend") and BLANK in (
            part.get("content"),
            part.get("prepend"),
        ):
            return "pieces"
    return None


def _components(value: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(value, dict):
        return
    table = cast("dict[str, Any]", value)
    yield table
    for name in _LISTS:
        for each in cast("list[Any]", table.get(name) or []):
            yield from _components(each)


def bytes_of(token: str, spelling: Spelling) -> bytes | None:
    """Return the bytes of text that a plain token stands for; None where it stands for none."""
    if spelling == "byte-level":
        letters = [_BYTES.get(letter) for letter in token]
        return None if None in letters else bytes(cast("list[int]", letters))
    byte = _BYTE_PIECE.fullmatch(token)
    if byte:
        return bytes([int(byte[1], 16)])
    return token.replace(BLANK, " ").encode(errors="surrogatepass")


def is_byte_piece(token: str, spelling: Spelling) -> bool:
    """Return whether a token is one such as <0x0A>."""
    return spelling == "pieces" and _BYTE_PIECE.fullmatch(token) is not None


def text_of(token: str, spelling: Spelling) -> str | None:
    """Return the text of a plain token; None for bytes that are no text by themselves."""
    data = None if is_byte_piece(token, spelling) else bytes_of(token, spelling)
    try:
        return data.decode() if data is not None else None
    except UnicodeDecodeError:
        return None


def spelled(text: str, spelling: Spelling) -> str:
    """Return a text as the tokens of such a tokenizer spell it."""
    if spelling == "byte-level":
        return spelled_bytes(text.encode())
    return text.replace(" ", BLANK)


def spelled_bytes(data: bytes) -> str:
    """Return bytes as the tokens of a byte-level tokenizer spell them."""
    return "".join(BYTE_LETTERS[byte] for byte in data)


def is_chinese(text: str) -> bool:
    """Return whether a text is of Han characters and the marks of Chinese texts alone."""
    return _CHINESE.fullmatch(text) is not None and _KANA.search(text) is None
