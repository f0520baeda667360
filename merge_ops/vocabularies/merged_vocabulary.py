"""The vocabulary of a merge: which row of which model every row of its embeddings comes from.

By mergekit 0.1.5's rules. Each model brings its own row for a token that it has. For a token that a
model lacks: the row of the only model that has it, else the base's, else the average of those that
have it, else zeros. `tokens` in the recipe says another row, with `force` for all models. Rows that
pad the vocabulary are the mean of the others. Known tokens keep all models' own rows, so that what
follows, task vectors included, is merged by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from merge_ops.arrangement.groups import Group
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.tensor_names import is_embedding, is_vocabulary
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.recipes.vocabulary_policy import UNION, TokenizerPolicy, TokenRow
from merge_ops.sources.gathered_rows import AVERAGE, MEAN, ZERO, GatheredRows, RowMap
from merge_ops.vocabularies.tokenizers import (
    Tokenizer,
    read_tokenizer,
    union,
    with_tokens,
    without_unused,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUBJECT = "merged vocabulary"


@dataclass(frozen=True)
class MergedVocabulary:
    """A merged vocabulary holds the tokens of the output and those of every merged model.

    `known` holds the tokens of each model by the model's name. `tokenizer` is None where the
    donor's tokenizer files stay as they are.
    """

    policy: TokenizerPolicy
    donor: Checkpoint
    tokenizer: Tokenizer | None
    tokens: Mapping[str, int]
    known: Mapping[str, Mapping[str, int]]
    cautions: tuple[Caution, ...]

    @property
    def rows(self) -> int:
        """Return the rows of the embeddings: one for each id, and the padding."""
        multiple = self.policy.pad_to_multiple_of or 1
        return -(-(max(self.tokens.values()) + 1) // multiple) * multiple

    @property
    def summary(self) -> str:
        """Return one line that describes the vocabulary to people."""
        source = self.policy.source
        return f"vocabulary: {source}, {len(self.tokens):,} tokens, {self.rows:,} rows"

    def sources(
        self, name: str, group: Group, found: Mapping[str, TensorSource]
    ) -> dict[str, TensorSource]:
        """Return the source of the tensor `name` for each model, by the model's name.

        Each has the rows of the merged vocabulary. Raises CompatibilityError where a row that is
        needed is not there.
        """
        members = tuple(dict.fromkeys(each.name for each in group.members if each.name in found))
        sources = tuple(found[member] for member in members)
        maps = _RowMaps(self, members, group.base_name, [each.shape[0] for each in sources], name)
        aligned: dict[str, TensorSource] = {}
        for position, (member, source) in enumerate(zip(members, sources, strict=True)):
            rows = maps.of(position)
            same = rows.is_identity(position, source.shape[0])
            aligned[member] = source if same else GatheredRows(source, sources, rows)
        return aligned


def merge_vocabularies(
    policy: TokenizerPolicy,
    base: Checkpoint,
    models: Sequence[Checkpoint],
    donor: Checkpoint | None,
) -> MergedVocabulary:
    """Return the output's vocabulary.

    `models` are those that are merged, in the recipe's order. `donor` is the model that the policy
    names as the source, if it names one.

    Raises CheckpointError for tokenizers that cannot be read, CompatibilityError for a base without
    a tokenizer.
    """
    cautions: list[Caution] = []
    base_tokenizer = read_tokenizer(base)
    if base_tokenizer is None:
        problem = "has no tokenizer.json; a merged vocabulary starts from the base's"
        raise CompatibilityError(SUBJECT, [Fault(base.name, problem)])
    stripped = without_unused(base_tokenizer, _embedding_rows(base), base.name)
    read = {base.name: stripped}
    for model in models if donor is None else (*models, donor):
        if model.name in read:
            continue
        model_tokenizer = read_tokenizer(model)
        if model_tokenizer is None:
            cautions.append(
                Caution(
                    model.name,
                    "has no tokenizer; its vocabulary is taken as the base's",
                    "Put its tokenizer.json into the folder where it has another",
                )
            )
        read[model.name] = model_tokenizer or stripped
    others = [(read[model.name], _embedding_rows(model)) for model in models]
    before, output = base_tokenizer, stripped
    if policy.source == UNION:
        output = union(stripped, [each for each in others if each[0] is not stripped])
    elif donor is not None:
        before = output = base_tokenizer if donor.name == base.name else read[donor.name]
    output = with_tokens(output, [token for token in policy.rules if token not in output.plain])
    changed = (output.plain, output.added) != (before.plain, before.added)
    tokens = {name: tokenizer.tokens for name, tokenizer in read.items()}
    return MergedVocabulary(
        policy, donor or base, output if changed else None, output.tokens, tokens, tuple(cautions)
    )


def _embedding_rows(checkpoint: Checkpoint) -> int:
    for name, entry in checkpoint.tensors.items():
        if is_embedding(name):
            return entry.shape[0]
    problem = "has no input embedding that is known by its name, so its vocabulary cannot be merged"
    raise CompatibilityError(SUBJECT, [Fault(checkpoint.name, problem)])


class _RowMaps:
    """The row maps of one tensor's models."""

    def __init__(
        self,
        vocabulary: MergedVocabulary,
        members: Sequence[str],
        base: str | None,
        lengths: Sequence[int],
        name: str,
    ) -> None:
        self._vocabulary = vocabulary
        self._members = members
        self._lengths = lengths
        self._name = name
        size = vocabulary.rows
        self._named = np.zeros(size, dtype=bool)
        self._named[np.fromiter(vocabulary.tokens.values(), np.int64)] = True
        self._own = np.stack([self._rows_of(member, size) for member in members])
        self._check_lengths()
        self._forced = np.zeros(size, dtype=bool)
        self._origin, self._row = self._usual(base)
        self._apply_rules()
        self._averages: dict[int, list[tuple[int, int]]] = {}
        for row in np.flatnonzero(self._origin == AVERAGE).tolist():
            owners = np.flatnonzero(self._own[:, row] >= 0).tolist()
            self._averages[row] = [(owner, int(self._own[owner, row])) for owner in owners]

    def of(self, position: int) -> RowMap:
        """The map of the model at `position`: its own rows, and the usual ones for the rest."""
        own = self._own[position]
        other = (own < 0) | self._forced
        origin = np.where(other, self._origin, position).astype(np.int32)
        row = np.where(other, self._row, own).astype(np.int32)
        averages = {at: rows for at, rows in self._averages.items() if origin[at] == AVERAGE}
        return RowMap(origin, row, averages)

    def _rows_of(self, member: str, size: int) -> NDArray[np.int32]:
        rows = np.full(size, -1, dtype=np.int32)
        known = self._vocabulary.known[member]
        for token, number in self._vocabulary.tokens.items():
            rows[number] = known.get(token, -1)
        return rows

    def _check_lengths(self) -> None:
        for member, own, length in zip(self._members, self._own, self._lengths, strict=True):
            beyond = np.flatnonzero(own >= length)
            if not len(beyond):
                continue
            first = int(beyond[0])
            token = next(t for t, n in self._vocabulary.tokens.items() if n == first)
            self._fail(
                member,
                f"has token {token!r} with id {own[first]} in its tokenizer, but '{self._name}' has"
                f" {length} rows ({len(beyond)} such tokens); lengthen its embedding"
                " (resize_token_embeddings) or take these tokens out of its tokenizer",
            )

    def _usual(self, base: str | None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Origin and row for models that lack a token, before the recipe's own rules."""
        owners = (self._own >= 0).sum(axis=0)
        origin = np.where(owners == 1, (self._own >= 0).argmax(axis=0), AVERAGE)
        if base in self._members:
            position = self._members.index(base)
            has = (self._own[position] >= 0) & (owners > 1)
            origin = np.where(has, position, origin)
        origin = np.where(owners == 0, ZERO, origin)
        origin = np.where(self._named, origin, MEAN).astype(np.int32)
        columns = np.arange(len(origin))
        row = np.where(origin >= 0, self._own[np.maximum(origin, 0), columns], 0)
        return origin, row.astype(np.int32)

    def _apply_rules(self) -> None:
        for token, rule in self._vocabulary.policy.rules.items():
            at = self._vocabulary.tokens[token]
            lacking = bool((self._own[:, at] < 0).any())
            if rule.row is None or not (rule.force or lacking):
                continue
            self._forced[at] = rule.force
            self._origin[at], self._row[at] = self._place_of(token, at, rule.row)

    def _place_of(self, token: str, at: int, row: TokenRow) -> tuple[int, int]:
        if row.model is None:
            return ZERO, 0
        where = f"tokenizer.tokens.{token}.source"
        if row.model not in self._members:
            merged = ", ".join(self._members)
            self._fail(where, f"is a row of {row.model}, which '{self._name}' is not merged from;"
                              f" name one of {merged}")  # fmt: skip
        position = self._members.index(row.model)
        known, length = self._vocabulary.known[row.model], self._lengths[position]
        if row.token_id is not None:
            number = row.token_id
        elif row.token is not None:
            number = known.get(row.token, -1)
        else:
            number = int(self._own[position, at])
        if number < 0:
            wanted = row.token or token
            self._fail(where, f"is {row.model}'s row for {wanted!r}, a token that it lacks")
        if number >= length:
            self._fail(
                where, f"is row {number} of {row.model}, whose '{self._name}' has {length} rows"
            )
        return position, number

    def _fail(self, where: str, problem: str) -> NoReturn:
        raise CompatibilityError(SUBJECT, [Fault(where, problem)])


def unknown_vocabulary_tensors(checkpoint: Checkpoint) -> list[str]:
    """Return the tensors that may have a row for each token, though no name says so.

    They lie outside the layers and are as long as the embedding.
    """
    rows = _embedding_rows(checkpoint)
    return [
        name
        for name, entry in checkpoint.tensors.items()
        if layer_of(name) is None and not is_vocabulary(name) and entry.shape[:1] == (rows,)
    ]
