"""Do two models give every row of their embeddings the same token?

Rows beyond the embeddings do not count, nor do the files where their bytes are equal. Of two forms
(tokenizer.json here, tokenizer.model there) the rows are compared where both number tokens alike;
where that cannot be known, it is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.tensor_names import ASK_FOR_POLICY, is_vocabulary, shape_fault
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.checkpoints.vocabulary import (
    VocabularyFile,
    vocabularies_of,
    vocabulary_files,
    vocabulary_rows,
)
from merge_ops.checkpoints.vocabulary_forms import TOKENIZER
from merge_ops.errors import Caution, CheckpointError, Fault

_CONVERT = (
    "To merge them by token, give both a tokenizer.json (transformers:"
    " AutoTokenizer.from_pretrained(folder).save_pretrained(folder)), and say in the recipe which"
    " vocabulary the result has, for example `tokenizer: {source: union}`"
)
_LOOK = "Make sure that both models have the same tokenizer before the result is used"


@dataclass(frozen=True)
class _Difference:
    """Where the rows of two models differ.

    `missing` are tokens of the base that have another row in the expert, or none; `new` are tokens
    that the expert alone has. `certain` is false where files do not tell all.
    """

    missing: tuple[str, ...]
    new: tuple[str, ...]
    certain: bool


def tokenized_first(base: Checkpoint, experts: Sequence[Checkpoint]) -> Checkpoint:
    """Return the model that others are compared with: the base, or the first with a tokenizer."""
    return next((each for each in (base, *experts) if vocabulary_files(each)), base)


def differing_vocabulary(base: Checkpoint, expert: Checkpoint) -> bool:
    """Return whether equal row numbers mean different tokens, or one model has more rows."""
    return next(vocabulary_faults(base, expert), None) is not None


def vocabulary_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """Yield where equal row numbers mean different tokens, or one model has more rows."""
    yield from tokenizer_faults(base, expert)
    for name, entry in base.tensors.items():
        other = find_source(expert, name)
        if other is not None and is_vocabulary(name) and entry.shape != other.shape:
            yield shape_fault(base, expert, name, entry.shape, other.shape)


def tokenizer_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """Yield where the tokenizers of two models give tokens other rows."""
    yield from (each for each in _compared(base, expert) if isinstance(each, Fault))


def vocabulary_cautions(base: Checkpoint, expert: Checkpoint) -> Iterator[Caution]:
    """Yield what cannot be known of two models' vocabularies, and files that cannot be read."""
    yield from (each for each in _compared(base, expert) if isinstance(each, Caution))


def equal_vocabularies(base: Checkpoint, expert: Checkpoint) -> bool:
    """Return whether no difference between the vocabularies of two checkpoints is known.

    They count as equal where one of them has no vocabulary. Files of equal bytes are not parsed.
    """
    return next(tokenizer_faults(base, expert), None) is None


def _compared(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault | Caution]:
    """What there is to say of two models' vocabularies."""
    if not vocabulary_files(base) or not vocabulary_files(expert):
        return
    unreadable = False
    found: list[dict[str, VocabularyFile]] = []
    for checkpoint in (base, expert):
        try:
            found.append(vocabularies_of(checkpoint))
        except CheckpointError as error:
            unreadable = True
            yield _unreadable(checkpoint, error)
    if unreadable:
        return
    pairs = list(_pairs(*found))
    for last, (ours, theirs) in enumerate(pairs, 1 - len(pairs)):
        read: list[tuple[dict[str, int], frozenset[str]]] = []
        try:
            if ours.same_bytes(theirs):
                return
        except CheckpointError as error:
            yield _unreadable(base, error)
            return
        for checkpoint, file in ((base, ours), (expert, theirs)):
            try:
                read.append(file.all_rows())
            except CheckpointError as error:
                yield _unreadable(checkpoint, error)
        if len(read) < 2:
            return
        limit = _rows_of_both(base, expert)
        difference = _difference(ours.form == theirs.form, read[0], read[1], limit)
        if difference is None:
            return
        if difference.certain or not last:
            yield _told(base, expert, ours, theirs, difference)
            return


def _pairs(
    ours: Mapping[str, VocabularyFile], theirs: Mapping[str, VocabularyFile]
) -> Iterator[tuple[VocabularyFile, VocabularyFile]]:
    """The files to compare: the preferred of both, then of a form that both have."""
    preferred = next(iter(ours.values())), next(iter(theirs.values()))
    if preferred[0].form == preferred[1].form:
        yield preferred
        return
    yield preferred
    for form, file in ours.items():
        if form in theirs:
            yield file, theirs[form]


def _rows_of_both(base: Checkpoint, expert: Checkpoint) -> int | None:
    rows = [each for each in (vocabulary_rows(base), vocabulary_rows(expert)) if each is not None]
    return min(rows, default=None)


def _difference(
    same_form: bool,
    base: tuple[dict[str, int], frozenset[str]],
    expert: tuple[dict[str, int], frozenset[str]],
    limit: int | None,
) -> _Difference | None:
    """How two vocabularies differ in the rows that there are; None where they do not."""
    ours, theirs = (
        {token: row for token, row in rows.items() if limit is None or row < limit}
        for rows, _ in (base, expert)
    )
    if ours == theirs:
        return None
    missing = [token for token, row in ours.items() if theirs.get(token) != row]
    new = [token for token in theirs if token not in ours]
    at_ours, at_theirs = set(ours.values()), set(theirs.values())
    moved = any(token in theirs for token in missing)
    clash = any(ours[token] in at_theirs for token in missing if token not in theirs)
    clash = clash or any(theirs[token] in at_ours for token in new)
    if same_form:
        certain = moved or clash or not (base[1] | expert[1]).issuperset([*missing, *new])
    else:
        certain = (moved or clash) and _numbered_alike(ours, theirs)
    return _Difference(tuple(missing), tuple(new), certain)


def _numbered_alike(ours: Mapping[str, int], theirs: Mapping[str, int]) -> bool:
    """Whether two forms give rows by one rule, so that differences are the models' own.

    Some classes shift the pieces of SentencePiece (XLM-R by one), and spell tokens otherwise.
    """
    shifts = Counter(theirs[token] - row for token, row in ours.items() if token in theirs)
    common = shifts.total()
    if 2 * common < min(len(ours), len(theirs)):
        return False
    shift, count = shifts.most_common(1)[0]
    return shift == 0 or 2 * count < common


def _unreadable(checkpoint: Checkpoint, error: CheckpointError) -> Caution:
    return Caution(
        checkpoint.name,
        f"has a vocabulary that cannot be read, so it was compared with no other: {error}",
        f"Restore the file from its source. {_LOOK}",
    )


def _told(
    base: Checkpoint,
    expert: Checkpoint,
    ours: VocabularyFile,
    theirs: VocabularyFile,
    difference: _Difference,
) -> Fault | Caution:
    example = (difference.missing or difference.new)[0]
    if ours.form == theirs.form:
        files = f" by {theirs.file}" if theirs.form != TOKENIZER else ""
    else:
        files = f" by {theirs.file}, against {ours.file}"
    counts = (
        f"{len(difference.missing)} tokens moved or missing, {len(difference.new)} new"
        f" (first: {example!r}{files})"
    )
    if difference.certain:
        policy = ASK_FOR_POLICY if ours.form == theirs.form == TOKENIZER else _CONVERT
        return Fault(
            expert.name,
            f"has another vocabulary than {base.name}: {counts}; embedding rows would be averaged"
            f" across different tokens. {policy}",
        )
    return Caution(
        expert.name,
        f"may have another vocabulary than {base.name}, which its files do not tell for certain:"
        f" {counts}",
        _LOOK,
    )
