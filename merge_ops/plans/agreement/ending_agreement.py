"""Does the merged checkpoint stop where its models do, and generate as they do?

A model that ends its answers with a token that nobody told the result of never stops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.vocabulary import vocabularies_of
from merge_ops.errors import Caution, CheckpointError
from merge_ops.plans.agreement.config_agreement import joined_cautions
from merge_ops.recipes.recipe import Recipe
from merge_ops.vocabularies.chat_templates import TEMPLATE_FILE, template_of
from merge_ops.vocabularies.merged_vocabulary import MergedVocabulary
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer
from merge_ops.vocabularies.special_ids import (
    GENERATION,
    KINDS,
    listed,
    named_token,
    side_object,
    stated_ids,
)

# What ends a turn in the templates that are in use, and words of those that begin one.
_TURN_END = re.compile(
    r"\beos_token\b|<\|[^|<>\s]{1,40}\|>|<｜[^<>\s]{1,40}｜>|\[\|[^|\[\]\s]{1,40}\|\]"
    r"|</s>|<(?:end_of_turn|eos|eot|EOT|turn\|)>"
)
_TURN_START = re.compile(r"start|begin|bos|user|assistant|system|tool|think", re.IGNORECASE)
_NEAR = 160
"""Letters of a template behind the content of a message, among which its end is looked for."""

# Settings of a file that are about the file, and ids, which are compared by themselves.
_NO_SETTING = re.compile(r".*_token_id|transformers_version|_from_model_config")


class _Ends:
    """What begins, ends and pads the texts of one model, as tokens where they are known.

    `rows` gives the row of each token, when it is asked for: to read it takes a while.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        generation: Mapping[str, Any],
        tokenizer: Checkpoint,
        rows: Callable[[], Mapping[str, int]],
    ) -> None:
        self._configs = (generation, config)
        self._tokenizer = tokenizer
        self._rows = rows

    @cached_property
    def _by_row(self) -> Mapping[int, str]:
        return {row: token for token, row in self._rows().items()}

    def of(self, kind: str) -> set[str | int]:
        """The ids that the generation config states, else the config, as tokens."""
        for config in self._configs:
            ids = listed(stated_ids(config, kind))
            if ids:
                return {self._by_row.get(number, number) for number in ids}
        return set()

    def with_named(self, kind: str) -> set[str | int]:
        """The same, and the token that the tokenizer names where ids can be told as tokens."""
        token = named_token(self._tokenizer, kind)
        return self.of(kind) | ({token} if token and self._by_row else set[str]())


def ending_cautions(
    recipe: Recipe,
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    tokenizer: OutputTokenizer | None,
) -> list[Caution]:
    """Return where the result ends, begins or pads texts with other tokens than an expert.

    Also where a chat template that the recipe asks for ends turns with a token that ends no text,
    and what experts generate with and the result does not.
    """
    before = side_object(base, GENERATION)
    output = _Ends(base.config, before, base, lambda: _rows(base))
    vocabulary = tokenizer.vocabulary if tokenizer else None
    if tokenizer and vocabulary:
        config, generation = tokenizer.configured(base.config), tokenizer.generation(before)
        output = _Ends(config, generation, vocabulary.donor, lambda: vocabulary.tokens)
    cautions = list(_template_cautions(recipe, base, experts, tokenizer, output))
    for expert in experts:
        if not _same_ids(expert, base) or (vocabulary and not _same_rows(vocabulary, expert, base)):
            # Models without a tokenizer, and of one vocabulary, have the base's rows.
            own = partial(vocabulary.known.get, expert.name, {}) if vocabulary else None
            rows = own or partial(_rows, base, expert)
            theirs = _Ends(expert.config, side_object(expert, GENERATION), expert, rows)
            if not vocabulary:
                output = _Ends(base.config, before, base, rows)
            cautions += _id_cautions(expert, theirs, output)
        cautions += _setting_cautions(expert, base)
    return joined_cautions(cautions)


def _same_rows(vocabulary: MergedVocabulary, expert: Checkpoint, base: Checkpoint) -> bool:
    known = vocabulary.known
    return vocabulary.donor is base and known.get(expert.name) == known.get(base.name)


def _same_ids(expert: Checkpoint, base: Checkpoint) -> bool:
    """Whether two models of one vocabulary state the same ids and name the same tokens."""

    def told(model: Checkpoint, kind: str) -> list[Any]:
        configs = (model.config, side_object(model, GENERATION))
        return [*(stated_ids(each, kind) for each in configs), named_token(model, kind)]

    return all(told(expert, kind) == told(base, kind) for kind in KINDS)


def _id_cautions(expert: Checkpoint, theirs: _Ends, output: _Ends) -> Iterator[Caution]:
    for kind in KINDS:
        ours, other = output.of(kind), theirs.of(kind)
        if kind == "eos":
            other, ours = theirs.with_named(kind), output.with_named(kind)
            if ours and other - ours:
                yield Caution(
                    expert.name,
                    f"has eos_token_id for {_listed(other)}, the merged checkpoint for"
                    f" {_listed(ours)}; it may not stop where it should",
                    "Add the token's id to eos_token_id in the result's generation_config.json, or"
                    " take the tokenizer and the ids of such a model (`tokenizer: {source: …}`)",
                )
        elif ours and other and ours != other:
            yield Caution(
                expert.name,
                f"has {kind}_token_id for {_listed(other)}, the merged checkpoint for"
                f" {_listed(ours)}",
                f"Where the expert's is meant, change {kind}_token_id in the result's config.json"
                " and generation_config.json",
            )


def _template_cautions(
    recipe: Recipe,
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    tokenizer: OutputTokenizer | None,
    output: _Ends,
) -> Iterator[Caution]:
    if not recipe.chat_template:
        if (tokenizer is None or tokenizer.files is None) and not _template(base):
            for expert in experts:
                if _template(expert):
                    yield Caution(
                        expert.name,
                        f"has a chat template, {base.name} and so the merged checkpoint have none",
                        "Say `chat_template: auto` in the recipe to take it",
                    )
        return
    text = tokenizer.files.get(TEMPLATE_FILE) if tokenizer and tokenizer.files else None
    turn_ends = _turn_ends(text.decode()) if text else []
    ends = output.of("eos") or output.with_named("eos")
    if turn_ends and ends and "eos_token" not in turn_ends and ends.isdisjoint(turn_ends):
        yield Caution(
            "chat_template",
            f"ends turns with {turn_ends[0]!r}, but the merged checkpoint ends its text with"
            f" {_listed(ends)}; it may not stop after an answer",
            "Add the token's id to eos_token_id in the result's generation_config.json, or take the"
            " tokenizer of the model that the template belongs to (`tokenizer: {source: …}`)",
        )


def _turn_ends(template: str) -> list[str]:
    """The tokens that a chat template writes first behind the content of a message."""
    found: list[str] = []
    for piece in re.split(r"\bcontent\b", template)[1:]:
        tokens = (each[0] for each in _TURN_END.finditer(piece[:_NEAR]))
        end = next((each for each in tokens if not _TURN_START.search(each)), None)
        if end is not None and end not in found:
            found.append(end)
    return found


def _setting_cautions(expert: Checkpoint, base: Checkpoint) -> Iterator[Caution]:
    ours, theirs = side_object(base, GENERATION), side_object(expert, GENERATION)
    other = [
        f"{key} {_short(theirs[key])} for {_short(ours[key])}"
        for key in ours
        if key in theirs and theirs[key] != ours[key] and not _NO_SETTING.fullmatch(key)
    ]
    if other:
        yield Caution(
            expert.name,
            f"has other settings in {GENERATION} than {base.name}, whose file the merged checkpoint"
            f" takes ({', '.join(other)})",
            f"Where the expert's are meant, change them in the result's {GENERATION}",
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else text[:36] + " …"


def _template(checkpoint: Checkpoint) -> str | None:
    try:
        return template_of(checkpoint)
    except CheckpointError:
        return None


def _rows(*models: Checkpoint) -> Mapping[str, int]:
    """The row of each token, by the first of the models that has a vocabulary."""
    for model in models:
        try:
            for found in vocabularies_of(model).values():
                return found.all_rows()[0]
        except CheckpointError:
            continue
    return {}


def _listed(tokens: set[str | int]) -> str:
    return ", ".join(sorted(map(repr, tokens)))
