"""A donor's vocabulary for a model: which tokens both have, and what the others are made of.

Two tokens are one where they stand for the same bytes (▁the, Ġthe), or where both tokenizers name
them for the same purpose (the end of a text). mergekit-tokensurgeon compares spellings and the mark
for a blank alone, so that no Chinese token of a byte-level tokenizer meets one of SentencePiece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.measures.interpolation import SCHEMES
from merge_ops.recipes.structures.vocabulary_step import (
    COMMON_INTERPOLATION,
    LANDMARK_PCA,
    SUBWORD_ENDS,
    SUBWORD_MEAN,
    SUBWORD_WEIGHTED,
    VocabularyStep,
)
from merge_ops.vocabularies.special_ids import named_token
from merge_ops.vocabularies.token_texts import (
    Spelling,
    bytes_of,
    is_byte_piece,
    spelled,
    spelled_bytes,
    spelling_of,
    text_of,
)
from merge_ops.vocabularies.tokenizer_pieces import TokenizerChild
from merge_ops.vocabularies.tokenizers import Tokenizer

SUBJECT = "vocabulary.transplant"
PURPOSES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


@dataclass(frozen=True)
class SharedTokens:
    """Shared tokens are the ids of a donor's tokens: with the model's id, or lacking there.

    `shared` rises by the donor's ids, and so does `lacking`, which holds the tokens.
    """

    shared: Mapping[int, int]
    lacking: Mapping[int, str]


@dataclass(frozen=True)
class ReadTokenizer:
    """A read tokenizer is one of a model, with how it spells texts."""

    model: Checkpoint
    tokenizer: Tokenizer
    spelling: Spelling


def read_spelling(model: Checkpoint, tokenizer: Tokenizer | None) -> ReadTokenizer:
    """Return a model's tokenizer with how it spells texts.

    Raises CompatibilityError where it has none, or spells texts in a way that is not known.
    """
    if tokenizer is None:
        problem = "has no tokenizer.json; a vocabulary is transplanted from one to another"
        raise CompatibilityError(SUBJECT, [Fault(model.name, problem)])
    spelling = spelling_of(tokenizer.document)
    if spelling is None:
        problem = "has a tokenizer that neither spells bytes (byte-level) nor writes ▁ for a blank"
        problem += ", so what its tokens stand for is not known"
        raise CompatibilityError(SUBJECT, [Fault(model.name, problem)])
    return ReadTokenizer(model, tokenizer, spelling)


def shared_tokens(
    ours: ReadTokenizer, rows: int, theirs: ReadTokenizer, donor_rows: int
) -> SharedTokens:
    """Return which of a donor's tokens a model has; `rows` and `donor_rows` are their embeddings'.

    Raises CompatibilityError where tokens have no row.
    """
    faults: list[Fault] = []
    for read, count in ((ours, rows), (theirs, donor_rows)):
        beyond = [t for t, number in read.tokenizer.tokens.items() if number >= count]
        if beyond:
            problem = f"has {len(beyond)} tokens without a row in its embedding ({count} rows),"
            advice = "lengthen it (resize_token_embeddings) or take these out of its tokenizer"
            faults.append(Fault(read.model.name, f"{problem} first {beyond[0]!r}; {advice}"))
    if faults:
        raise CompatibilityError(SUBJECT, faults)
    by_bytes = _by_bytes(ours)
    by_purpose: dict[str, int] = {}
    for purpose in reversed(PURPOSES):  # of several purposes of one token the first counts
        named = ours.tokenizer.tokens.get(named_token(ours.model, purpose) or "")
        token = named_token(theirs.model, purpose)
        if named is not None and token in theirs.tokenizer.tokens:
            by_purpose[str(token)] = named
    shared: dict[int, int] = {}
    lacking: dict[int, str] = {}
    for token, number in sorted(theirs.tokenizer.tokens.items(), key=lambda pair: pair[1]):
        own = by_purpose.get(token)
        for key in () if own is not None else _keys(token, theirs):
            own = by_bytes.get(key)
            if own is not None:
                break
        if own is None:
            lacking[number] = token
        else:
            shared[number] = own
    return SharedTokens(shared, lacking)


_Key = tuple[str, bytes]


def _keys(token: str, read: ReadTokenizer) -> list[_Key]:
    """What a token may be known by, the surest first: an added one, its text, a byte."""
    if token in read.tokenizer.added:
        data = token.encode(errors="surrogatepass")
        return [("added", data), ("text", data)]
    data = bytes_of(token, read.spelling)
    if data is None:
        return []
    kinds = ["text", "byte"] if not is_byte_piece(token, read.spelling) else ["byte", "text"]
    return [(kind, data) for kind in kinds if kind != "byte" or len(data) == 1] + [("added", data)]


def _by_bytes(read: ReadTokenizer) -> dict[_Key, int]:
    found: dict[_Key, int] = {}
    for token, number in sorted(read.tokenizer.tokens.items(), key=lambda pair: pair[1]):
        for key in _keys(token, read)[:1]:
            found.setdefault(key, number)
    return found


def subword_parts(
    ours: ReadTokenizer, theirs: ReadTokenizer, tokens: Sequence[str]
) -> list[list[int]]:
    """Return for each token of a donor the model's ids of the parts of its text.

    Where its bytes are no text, they are the model's tokens for single bytes. Empty where the model
    has nothing for it. Raises CheckpointError where the tokenizers library is needed and not there.
    """
    ways: list[str] = []
    known: dict[int, list[int]] = {}
    for position, token in enumerate(tokens):
        added = token in theirs.tokenizer.added
        text = token if added else text_of(token, theirs.spelling)
        data = None if added else bytes_of(token, theirs.spelling)
        if text is not None:
            ways.append(spelled(text, ours.spelling))
            continue
        ways.append("")
        if ours.spelling == "byte-level":
            ways[-1] = spelled_bytes(data or b"")
        else:
            ids = ours.tokenizer.tokens
            pieces = [ids.get(f"<0x{byte:02X}>") for byte in data or b""]
            known[position] = [each for each in pieces if each is not None]
    with TokenizerChild(ours.model.name) as child:
        parts = child.known_parts(ours.tokenizer, ways)
    return [known.get(position, ids) for position, ids in enumerate(parts)]


def counted_parts(ids: Sequence[int], rows: str, of_head: bool) -> list[tuple[int, int]]:
    """Return the parts of a token whose mean its row is, (model, row), each as often as it counts.

    An embedding tells most by the last part, after which a text goes on, and a head by the first,
    which is what a model expects there.
    """
    if rows == SUBWORD_ENDS:
        ids = ids[:1] if of_head else ids[-1:]
    if rows != SUBWORD_WEIGHTED:
        return [(0, each) for each in ids]
    times = range(len(ids), 0, -1) if of_head else range(1, len(ids) + 1)
    return [(0, each) for each, count in zip(ids, times, strict=True) for _ in range(count)]


def few_in_common(
    step: VocabularyStep, model: Checkpoint, donor: Checkpoint, common: int, width: int
) -> list[Fault]:
    """Return what is asked of more tokens in common than there are, or than `width` can tell."""
    told = f"'{donor.name}' and '{model.name}' have {common} tokens in common"
    if step.rows == LANDMARK_PCA:
        if common > width:
            return []
        problem = f"is {LANDMARK_PCA}; {told}, and more than the width of rows ({width}) decide"
        advice = f"where they turn; use `approximation: {SUBWORD_MEAN}`"
        return [Fault("vocabulary.approximation", f"{problem} {advice}")]
    free = step.rows == COMMON_INTERPOLATION and step.scheme == SCHEMES[0]
    most = common if free else min(common, width)
    if step.k <= most:
        return []
    problem = f"is {step.k}; {told}, with rows of {width}: at most {most} rows say"
    return [Fault("vocabulary.k", f"{problem} more than fewer do")]
