"""The model of a `vocabulary:` step: its rows for other tokens, and the tokenizer beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of, unstored_entry
from merge_ops.checkpoints.configs.config import VOCABULARY_SIZES, with_vocabulary
from merge_ops.checkpoints.configs.config_levels import TEXT_LEVELS
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.names.tensor_names import is_embedding, is_head, is_vocabulary
from merge_ops.checkpoints.names.ties import excluded, find_source, tied_tensors
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.structures.vocabulary_step import (
    BY_PARTS,
    BY_ROWS,
    MEAN,
    SUBWORD_MEAN,
    TRANSPLANT,
    ZERO,
    VocabularyStep,
)
from merge_ops.sources import gathered_rows
from merge_ops.sources.gathered_rows import AVERAGE, GatheredRows, RowMap
from merge_ops.sources.matched_rows import MatchedRows, Matching, Way
from merge_ops.vocabularies.chat_templates import resolve_template
from merge_ops.vocabularies.extension import extended
from merge_ops.vocabularies.merged_vocabulary import unknown_vocabulary_tensors
from merge_ops.vocabularies.offered_tokens import offered_tokens
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer
from merge_ops.vocabularies.special_ids import GENERATION, ids_of_tokenizer, with_ids
from merge_ops.vocabularies.tokenizer_files import tokenizer_files
from merge_ops.vocabularies.tokenizers import read_tokenizer
from merge_ops.vocabularies.transplant import (
    counted_parts,
    few_in_common,
    read_spelling,
    shared_tokens,
    subword_parts,
)

_LITTLE = 64 << 20  # bytes that need no word
SUBJECT = "vocabulary"


@dataclass(frozen=True)
class NewVocabulary:
    """A new vocabulary is a model with other rows, and the tokenizer that is written beside it.

    `beside` holds the model that tokens come from, where one is named.
    """

    model: Checkpoint
    tokenizer: OutputTokenizer
    beside: tuple[Checkpoint, ...]


def new_vocabulary(
    recipe: Recipe, step: VocabularyStep, checkpoints: Mapping[str, Checkpoint]
) -> NewVocabulary:
    """Return the recipe's model with the vocabulary that its step gives it.

    Raises CompatibilityError where the model cannot have it, CheckpointError for tokenizers that
    cannot be read.
    """
    model = checkpoints[recipe.models[0].model]
    names, rows = vocabulary_tensors(model)
    tokenizer = read_tokenizer(model)
    template = resolve_template(recipe.chat_template, [model]) if recipe.chat_template else None
    beside = (checkpoints[step.model],) if step.model and step.model != model.name else ()
    if step.kind == TRANSPLANT:
        donor = checkpoints[str(step.model)]
        sources, count, output = _transplanted(step, model, names, rows, donor, template)
        return NewVocabulary(_with_rows(model, sources, count, output), output, beside)
    if tokenizer is None:
        problem = "has no tokenizer.json; a new vocabulary starts from the model's own"
        raise CompatibilityError(SUBJECT, [Fault(model.name, problem)])
    made = extended(step, model.name, tokenizer, rows, offered_tokens(step, checkpoints))
    row_map = _longer(step, rows, made.first, made.parts)
    count = len(row_map.row)
    told = {"tokens": len(made.tokenizer.tokens), "rows": count, "new": len(made.parts),
            "bridges": made.bridges, **step.written}  # fmt: skip
    bridges = f", {made.bridges:,} of them parts of others" if made.bridges else ""
    summary = f"vocabulary: {len(made.parts):,} new tokens from {made.first:,} on{bridges}"
    files = tokenizer_files(model, made.tokenizer, template)
    line = f"{summary}, {count:,} rows"
    output = WrittenTokenizer(model, None, files, made.cautions, line, told)
    gathered = {name: _gathered(model, name, row_map) for name in names}
    return NewVocabulary(_with_rows(model, gathered, count, output), output, beside)


def _transplanted(
    step: VocabularyStep,
    model: Checkpoint,
    names: Sequence[str],
    rows: int,
    donor: Checkpoint,
    template: str | None,
) -> tuple[Mapping[str, TensorSource], int, WrittenTokenizer]:
    """The tensors with rows for a donor's vocabulary, their number of rows, and the tokenizer."""
    donor_names, donor_rows = vocabulary_tensors(donor)
    ours = read_spelling(model, read_tokenizer(model))
    theirs = read_spelling(donor, read_tokenizer(donor))
    found = shared_tokens(ours, rows, theirs, donor_rows)
    lacking = list(found.lacking)
    tokens = theirs.tokenizer.tokens
    multiple = step.pad_to_multiple_of or 1
    count = -(-(max(tokens.values()) + 1) // multiple) * multiple
    origin, row = np.full(count, gathered_rows.MEAN, np.int32), np.zeros(count, np.int32)
    shared = np.fromiter(found.shared, np.int32), np.fromiter(found.shared.values(), np.int32)
    origin[shared[0]], row[shared[0]] = 0, shared[1]
    parts: dict[int, list[int]] = {}
    if step.rows in (ZERO, *BY_ROWS):
        origin[lacking] = gathered_rows.ZERO
    elif step.rows in BY_PARTS and lacking:
        cut = subword_parts(ours, theirs, list(found.lacking.values()))
        parts = {number: ids for number, ids in zip(lacking, cut, strict=True) if ids}
        origin[list(parts)] = AVERAGE
    sources: dict[str, TensorSource] = {}
    for name in names:
        counted = {at: counted_parts(ids, step.rows, is_head(name)) for at, ids in parts.items()}
        sources[name] = _gathered(model, name, RowMap(origin, row, counted))
    cautions: tuple[Caution, ...] = ()
    if step.rows in BY_ROWS and lacking:
        made = np.array(lacking, np.int32)
        way = Way(step.rows, step.scheme, step.distance)
        matching = Matching(made, made, shared[1], shared[0], step.k, way)
        sources, cautions = _matched(step, model, sources, donor, donor_names, matching)
    files = tokenizer_files(donor, None, template)
    config_ids, generation_ids = (
        ids_of_tokenizer(donor, tokens, file) for file in ("config.json", GENERATION)
    )
    told = {"tokens": len(tokens), "rows": count, "shared": len(found.shared),
            "new": len(lacking), **step.written}  # fmt: skip
    line = f"vocabulary: of {donor.name}, {len(found.shared):,} tokens of both,"
    line += f" {len(lacking):,} by {step.rows}, {count:,} rows"
    ids = (config_ids, generation_ids)
    return sources, count, WrittenTokenizer(model, None, files, cautions, line, told, ids)


def _matched(
    step: VocabularyStep,
    model: Checkpoint,
    known: Mapping[str, TensorSource],
    donor: Checkpoint,
    donor_names: Sequence[str],
    matching: Matching,
) -> tuple[dict[str, TensorSource], tuple[Caution, ...]]:
    """Rows by matching pursuit: an embedding by the donor's embedding, a head by its head."""
    faults: list[Fault] = []
    embedding = find_source(donor, next(name for name in donor_names if is_embedding(name)))
    heads = [each for name in donor_names if is_head(name) and (each := find_source(donor, name))]
    assert embedding is not None  # vocabulary_tensors has looked
    sources: dict[str, TensorSource] = {}
    held = 0
    for name, gathered in known.items():
        other = heads[0] if is_head(name) and heads else embedding
        if len(gathered.shape) != 2 or not (is_head(name) or is_embedding(name)):
            problem = f"has '{name}', whose rows have none like them in {donor.name}; use"
            faults.append(Fault(model.name, f"{problem} `approximation: {SUBWORD_MEAN}`"))
            continue
        assert isinstance(gathered, GatheredRows)
        sources[name] = MatchedRows(gathered, other, matching)
        held = max(held, matching.held(gathered.shape[1], other.shape[1], len(known)))
    faults += few_in_common(step, model, donor, len(matching.theirs), embedding.shape[1])
    if faults:
        raise CompatibilityError(SUBJECT, faults)
    if held < _LITTLE:
        return sources, ()
    problem = f"gets {len(matching.made):,} rows of {donor.name}'s tokens by {step.rows}, which"
    problem += f" holds {held / (1 << 30):.1f} GiB of embeddings beside what a merge holds"
    advice = f"`approximation: {SUBWORD_MEAN}` takes no such memory, nor the time"
    return sources, (Caution(model.name, problem, advice),)


@dataclass(frozen=True)
class WrittenTokenizer(OutputTokenizer):
    """A written tokenizer replaces the tokenizer files of the model of a vocabulary step.

    `ids` are those of special tokens that another model's tokenizer brings along, for config.json
    and generation_config.json.
    """

    line: str = ""
    told: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    ids: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None

    @property
    def summary(self) -> str:
        """Return one line that describes the vocabulary to people."""
        return self.line

    def configured(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config with the new ids of special tokens."""
        return with_ids(config, self.ids[0]) if self.ids else dict(config)

    def generation(self, generation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the generation config with the new ids of special tokens."""
        return with_ids(generation, self.ids[1]) if self.ids else dict(generation)

    def to_json(self) -> dict[str, Any]:
        """Return plain data for people."""
        return dict(self.told)


def vocabulary_tensors(model: Checkpoint) -> tuple[list[str], int]:
    """Return the tensors with a row for each token, without copies, and their number of rows.

    Raises CompatibilityError where they do not agree, or are not known.
    """
    copies = tied_tensors(model)
    found = {name: entry for name, entry in model.tensors.items()
             if is_vocabulary(name) and name not in copies}  # fmt: skip
    embedding = next((name for name in found if is_embedding(name)), None)
    if embedding is None:
        problem = "has no input embedding that is known by its name"
        raise CompatibilityError(SUBJECT, [Fault(model.name, f"{problem}, so no rows are added")])
    rows = found[embedding].shape[0]
    faults: list[Fault] = []
    for name, entry in found.items():
        if entry.shape[0] != rows:
            problem = f"has {list(entry.shape)} as '{name}', and {rows} rows in '{embedding}'"
            faults.append(Fault(model.name, f"{problem}; both must have a row for each token"))
        elif entry.dtype not in FLOAT_DTYPES:
            problem = f"holds '{name}' as {entry.dtype}; rows are made of floats alone"
            faults.append(Fault(model.name, problem))
    for name in unknown_vocabulary_tensors(model):
        problem = f"has '{name}', as long as its embedding but not known as a tensor with a row for"
        faults.append(Fault(model.name, f"{problem} each token; its vocabulary cannot be changed"))
    levels = [model.config, *(model.config.get(level) for level in TEXT_LEVELS)]
    said = [key for level in levels if isinstance(level, dict)
            for key in VOCABULARY_SIZES if key in cast("dict[str, Any]", level)]  # fmt: skip
    if not said:
        problem = "does not say `vocab_size` in config.json, so a loader would expect the usual"
        faults.append(Fault(model.name, f"{problem} number of rows; write {rows} there"))
    if faults:
        raise CompatibilityError(SUBJECT, faults)
    return list(found), rows


def _longer(step: VocabularyStep, rows: int, first: int, parts: Sequence[Sequence[int]]) -> RowMap:
    """The rows of an extended vocabulary: the old ones, and behind them those of new tokens."""
    multiple = step.pad_to_multiple_of or 1
    count = -(-max(rows, first + len(parts)) // multiple) * multiple
    origin = np.full(count, gathered_rows.MEAN, np.int32)
    row = np.zeros(count, np.int32)
    origin[:rows], row[:rows] = 0, np.arange(rows)
    averages: dict[int, list[tuple[int, int]]] = {}
    for number, ids in enumerate(parts, start=first):
        row[number] = 0
        if step.rows == ZERO:
            origin[number] = gathered_rows.ZERO
        elif step.rows == MEAN or not ids:
            origin[number] = gathered_rows.MEAN
        else:
            origin[number] = AVERAGE
            averages[number] = [(0, each) for each in ids]
    return RowMap(origin, row, averages)


def _gathered(model: Checkpoint, name: str, rows: RowMap) -> TensorSource:
    own = source_of(model, name)
    assert own is not None  # names are those of the model's tensors
    return GatheredRows(own, (own,), rows)


def _with_rows(
    model: Checkpoint, sources: Mapping[str, TensorSource], rows: int, output: OutputTokenizer
) -> Checkpoint:
    """The model with other rows; tensors that are copies of others are written once, as ever."""
    reasons, copies = excluded(model), tied_tensors(model)
    return dataclasses.replace(
        model,
        tensors={
            name: unstored_entry(sources[name]) if name in sources else entry
            for name, entry in model.tensors.items()
            if name not in copies
        },
        overlays={**model.overlays, **sources},
        config=output.configured(with_vocabulary(model.config, rows)),
        left_out={**model.left_out, **{name: reasons[name] for name in copies if name in reasons}},
        distinct=True,
    )
