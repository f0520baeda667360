"""The tokenizer and chat template of a planned merge, and what follows from them elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merge_ops.arrangement.groups import Arrangement, Group
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
from merge_ops.checkpoints.configs.config import with_vocabulary
from merge_ops.checkpoints.files.copied_files import SideFile, part_of
from merge_ops.checkpoints.files.strict_json import parse_json_object
from merge_ops.checkpoints.names.tensor_names import is_vocabulary
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.vocabulary_policy import BASE, UNION
from merge_ops.vocabularies.chat_templates import resolve_template
from merge_ops.vocabularies.merged_vocabulary import (
    SUBJECT,
    MergedVocabulary,
    merge_vocabularies,
    unknown_vocabulary_tensors,
)
from merge_ops.vocabularies.special_ids import (
    GENERATION,
    ids_of_tokenizer,
    side_object,
    with_ids,
)
from merge_ops.vocabularies.tokenizer_files import (
    files_digest,
    is_tokenizer_file,
    renumbered,
    tokenizer_files,
)


@dataclass(frozen=True)
class OutputTokenizer:
    """An output tokenizer is what the recipe's tokenizer keys make of the base's tokenizer.

    `files` replace the base's tokenizer files; None where those stay as they are.
    """

    base: Checkpoint
    vocabulary: MergedVocabulary | None
    files: Mapping[str, bytes] | None
    cautions: tuple[Caution, ...]

    @property
    def digest(self) -> str | None:
        """Return a digest that covers the files, or None where they are the base's own.

        It covers the ids of generation_config.json that come with another model's tokenizer.
        """
        if self.files is None:
            return None
        generation = side_object(self.base, GENERATION)
        after = self.generation(generation)
        if after == self._renumbered(generation):
            return files_digest(self.files)
        return files_digest({**self.files, GENERATION: _json_bytes(after)})

    def align(
        self, name: str, group: Group, own: TensorSource, found: Sequence[TensorSource | None]
    ) -> tuple[TensorSource, list[TensorSource | None]]:
        """Return the leader's source and the inputs' sources.

        Those of vocabulary tensors have the output's rows. Raises CompatibilityError where a row
        that is needed is not there.
        """
        if self.vocabulary is None or not is_vocabulary(name):
            return own, list(found)
        by_name = {group.members[0].name: own}
        for model, source in zip(group.inputs, found, strict=True):
            if source is not None:
                by_name[model.name] = source
        aligned = self.vocabulary.sources(name, group, by_name)
        return aligned[group.members[0].name], [aligned.get(each.name) for each in group.inputs]

    def configured(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config with the rows as written, and with the new ids of special tokens."""
        if self.vocabulary is None:
            return dict(config)
        return with_vocabulary(self._with_ids(config, "config.json"), self.vocabulary.rows)

    def beside(self, files: Mapping[str, SideFile]) -> dict[str, SideFile]:
        """Return the base's files, with this tokenizer's in place of the base's tokenizer."""
        output_files = dict(files)
        if self.files is not None:
            output_files = {
                name: data for name, data in files.items() if not is_tokenizer_file(name)
            }
            output_files |= self.files
        if GENERATION in output_files:
            where = f"{self.base.source.location}/{GENERATION}"
            given = output_files[GENERATION]
            before = parse_json_object(where, part_of(given, 0, len(given)))
            after = self.generation(before)
            if after != before:
                output_files[GENERATION] = _json_bytes(after)
        return output_files

    def generation(self, generation: Mapping[str, Any]) -> dict[str, Any]:
        """Return the base's generation config with the ids of special tokens as written."""
        return self._with_ids(generation, GENERATION)

    def _with_ids(self, config: Mapping[str, Any], file: str) -> dict[str, Any]:
        """The base's config with the ids of the tokenizer that is written."""
        moved = self._renumbered(config)
        if self.vocabulary is None or self.vocabulary.donor is self.base:
            return moved
        donor, tokens = self.vocabulary.donor, self.vocabulary.tokens
        return with_ids(moved, ids_of_tokenizer(donor, tokens, file))

    def _renumbered(self, config: Mapping[str, Any]) -> dict[str, Any]:
        if self.vocabulary is None or self.vocabulary.donor is self.base:
            return dict(config)
        return renumbered(config, self.vocabulary.known[self.base.name], self.vocabulary.tokens)

    @property
    def summary(self) -> str | None:
        """Return one line that describes the vocabulary to people; None where none is merged."""
        return self.vocabulary.summary if self.vocabulary else None

    def to_json(self) -> dict[str, Any] | None:
        """Return plain data for people, or None where no vocabulary is merged."""
        known = self.vocabulary
        return (
            {"tokens": len(known.tokens), "rows": known.rows, **known.policy.written}
            if known
            else None
        )


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def output_tokenizer(
    recipe: Recipe,
    base: Checkpoint,
    checkpoints: Mapping[str, Checkpoint],
    arrangement: Arrangement,
) -> OutputTokenizer | None:
    """Return what `tokenizer` and `chat_template` ask for, or None without both keys.

    Raises CheckpointError for tokenizers that cannot be read, CompatibilityError for models whose
    vocabularies cannot be merged so.
    """
    policy = recipe.tokenizer
    if policy is None and not recipe.chat_template:
        return None
    models = [checkpoints[name] for name in recipe.merged_models]
    vocabulary: MergedVocabulary | None = None
    cautions: list[Caution] = []
    if policy is not None:
        source = None if policy.source in (BASE, UNION) else checkpoints[policy.source]
        vocabulary = merge_vocabularies(policy, base, models, source)
        cautions += vocabulary.cautions
        _check_tensors(base, arrangement)
    template = resolve_template(recipe.chat_template, models) if recipe.chat_template else None
    if recipe.chat_template and template is None:
        cautions.append(
            Caution(
                "chat_template",
                "is auto, but no model has a chat template; none is written",
                "Name a template, or give its text",
            )
        )
    donor = vocabulary.donor if vocabulary else base
    tokenizer = vocabulary.tokenizer if vocabulary else None
    same = donor is base and tokenizer is None and template is None
    files = None if same else tokenizer_files(donor, tokenizer, template)
    return OutputTokenizer(base, vocabulary, files, tuple(cautions))


def _check_tensors(base: Checkpoint, arrangement: Arrangement) -> None:
    """Every tensor with a row for each token must be known as one, and merged."""
    faults: list[Fault] = []
    for name in unknown_vocabulary_tensors(base):
        problem = f"has '{name}', as long as its embedding but not known as a tensor with a row for"
        faults.append(Fault(base.name, f"{problem} each token; its vocabulary cannot be merged"))
    for place in arrangement.places:
        if place.group is None and is_vocabulary(place.name):
            problem = f"copy '{place.name}', whose rows follow the merged vocabulary; name the"
            faults.append(Fault("modules", f"{problem} module that it belongs to"))
    if faults:
        raise CompatibilityError(SUBJECT, faults)
