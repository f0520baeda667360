"""The pieces of a SentencePiece model, in order: piece n is row n of the embedding.

The file is one protocol buffer. Of it only this is read, and all else is skipped:

    ModelProto     field 1, repeated: SentencePiece; field 2: TrainerSpec
    SentencePiece  field 1: the piece, UTF-8; field 3: what it is (1: text, 4: asked for by a user)
    TrainerSpec    field 3: the kind of model (1: unigram, 2: BPE)
"""

from __future__ import annotations

MAX_PIECES = 4_000_000
"""The largest known vocabularies have about 260,000."""

MAX_OTHERS = 100
"""Fields of a model that are no pieces: its settings."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


_TEXT, _OF_USER, _BPE = 1, 4, 2


def sentencepiece_pieces(data: bytes) -> list[str]:
    """Return the pieces of a SentencePiece model, one for each row.

    Raises ValueError where the bytes are no such model.
    """
    return [piece for piece, _ in _read(data)[0]]


def text_pieces(data: bytes) -> tuple[list[str], bool]:
    """Return the pieces that stand for text, in order, and whether the model is a BPE.

    Left out are control tokens, bytes, <unk> and pieces that are not used. Raises ValueError where
    the bytes are no such model.
    """
    pieces, is_bpe = _read(data)
    return [piece for piece, kind in pieces if kind in (_TEXT, _OF_USER)], is_bpe


def _read(data: bytes) -> tuple[list[tuple[str, int]], bool]:
    """Each piece with what it is, and whether the model is a BPE."""
    pieces: list[tuple[str, int]] = []
    is_bpe = False
    at, end, fields = 0, len(data), 0
    while at < end:
        fields += 1
        if fields > MAX_PIECES + MAX_OTHERS:
            raise ValueError(f"more than {MAX_PIECES + MAX_OTHERS} fields")
        key, at = _varint(data, at, end)
        start, at = _field(data, at, end, key & 7)
        if key == (1 << 3 | _BYTES):
            if len(pieces) == MAX_PIECES:
                raise ValueError(f"more than {MAX_PIECES} pieces")
            pieces.append(_piece(data, start, at))
        elif key == (2 << 3 | _BYTES):
            is_bpe = _number(data, start, at, 3, 1) == _BPE
    if not pieces:
        raise ValueError("no SentencePiece model: it has no piece")
    return pieces, is_bpe


def _piece(data: bytes, at: int, end: int) -> tuple[str, int]:
    """The text of the SentencePiece in bytes [at, end), and what it is."""
    kind = _number(data, at, end, 3, _TEXT)
    found: str | None = None
    while at < end:
        key, at = _varint(data, at, end)
        start, at = _field(data, at, end, key & 7)
        if key == (1 << 3 | _BYTES):
            found = data[start:at].decode("utf-8", errors="backslashreplace")
    if found is None:
        raise ValueError("no SentencePiece model: a piece has no text")
    return found, kind


def _number(data: bytes, at: int, end: int, field: int, usual: int) -> int:
    """The last number of a field of the message in bytes [at, end), or the usual one."""
    found = usual
    while at < end:
        key, at = _varint(data, at, end)
        start, at = _field(data, at, end, key & 7)
        if key == (field << 3 | _VARINT):
            found = _varint(data, start, at)[0]
    return found


def _field(data: bytes, at: int, end: int, wire: int) -> tuple[int, int]:
    """Where the value of a field of this wire type starts and ends."""
    if wire == _VARINT:
        return at, _varint(data, at, end)[1]
    size = 8 if wire == _FIXED64 else 4
    if wire == _BYTES:
        size, at = _varint(data, at, end)
    elif wire not in (_FIXED64, _FIXED32):
        raise ValueError(f"no SentencePiece model: wire type {wire} at byte {at}")
    if size > end - at:
        raise ValueError(f"cut off at byte {end}")
    return at, at + size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number of at most 64 bits, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError(f"cut off at byte {end}")
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError(f"no SentencePiece model: a number of more than 64 bits at byte {at}")
