"""What breaks a merged model quietly: it loads, its numbers are sound, and it answers worse.

An expert speaks by its own chat template, fills in by its own tokens, and has a head of its own or
none; the result has what the base has. Beside these stand config_agreement (rope and the like) and
ending_agreement (the ids that begin, end and pad).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.ties import head_is_embedding
from merge_ops.errors import Caution, CheckpointError
from merge_ops.plans.agreement.config_agreement import joined_cautions
from merge_ops.recipes.recipe import Recipe
from merge_ops.vocabularies.chat_templates import template_of
from merge_ops.vocabularies.fim_tokens import fim_tokens
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer

TOKENIZER_FILE = "tokenizer.json"
MOST_NAMED = 3


def quiet_cautions(
    recipe: Recipe,
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    tokenizer: OutputTokenizer | None,
) -> list[Caution]:
    """Return where an expert was made to be used in another way than the result will be."""
    cautions: list[Caution] = []
    for expert in experts:
        cautions += _templates(recipe, base, expert, tokenizer)
        cautions += _lost_fim_tokens(expert, tokenizer)
        cautions += _marks(base, expert, tokenizer)
        cautions += _heads(base, expert)
    return joined_cautions(cautions)


def _templates(
    recipe: Recipe, base: Checkpoint, expert: Checkpoint, tokenizer: OutputTokenizer | None
) -> Iterator[Caution]:
    """Two chat templates, of which the result has the base's."""
    if recipe.chat_template or (tokenizer is not None and tokenizer.files is not None):
        return
    ours, theirs = _template(base), _template(expert)
    if ours and theirs and ours != theirs:
        yield Caution(
            expert.name,
            f"has another chat template than {base.name}, whose template the merged checkpoint"
            " takes; it may answer this expert's questions worse than they were trained",
            "Where the expert's is meant, give its text as `chat_template` in the recipe",
        )


def _template(checkpoint: Checkpoint) -> str | None:
    try:
        return template_of(checkpoint)
    except CheckpointError:  # told where the tokenizer is looked at
        return None


def _lost_fim_tokens(expert: Checkpoint, tokenizer: OutputTokenizer | None) -> Iterator[Caution]:
    """Tokens for filling in that an expert has, and a merged vocabulary has not."""
    vocabulary = tokenizer.vocabulary if tokenizer else None
    if vocabulary is None:
        return
    known = vocabulary.known.get(expert.name, {})
    lost = [token for token in fim_tokens(known) if token not in vocabulary.tokens]
    if lost:
        named = ", ".join(map(repr, lost[:MOST_NAMED]))
        yield Caution(
            expert.name,
            f"has {len(lost)} tokens for filling in the middle of a text that the merged"
            f" vocabulary lacks ({named}); the merged checkpoint cannot fill in",
            "Say `tokenizer: {source: union}` to keep them",
        )


def _marks(
    base: Checkpoint, expert: Checkpoint, tokenizer: OutputTokenizer | None
) -> Iterator[Caution]:
    """Tokens of both that are marks in one tokenizer and plain text in the other."""
    if tokenizer is not None and tokenizer.vocabulary is not None:
        return  # which says itself whose settings a token has
    both = [each.json_files for each in (base, expert)]
    if any(TOKENIZER_FILE not in files for files in both):
        return
    try:
        if both[0].digest(TOKENIZER_FILE) == both[1].digest(TOKENIZER_FILE):
            return
        ours, theirs = (_added(files.read(TOKENIZER_FILE)) for files in both)
    except CheckpointError:  # told where the tokenizers are compared
        return
    other = [token for token, mark in theirs.items() if ours.get(token, mark) != mark]
    if other:
        named = ", ".join(map(repr, other[:MOST_NAMED]))
        yield Caution(
            expert.name,
            f"has {len(other)} tokens that are marks in one tokenizer and text in the other, that"
            f" of {base.name} ({named}); the merged checkpoint takes the latter's, and decoding"
            " drops marks",
            "Compare `special` in both tokenizer.json",
        )


def _added(document: Any) -> dict[str, bool]:
    """The added tokens of a tokenizer.json, and whether each is a mark."""
    table = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    entries = table.get("added_tokens")
    listed = cast("list[Any]", entries) if isinstance(entries, list) else []
    tables = [cast("dict[str, Any]", each) for each in listed if isinstance(each, dict)]
    return {str(each.get("content")): bool(each.get("special")) for each in tables}


def _heads(base: Checkpoint, expert: Checkpoint) -> Iterator[Caution]:
    """An output head that is the embedding in one model and a tensor of its own in the other."""
    ours, theirs = head_is_embedding(base), head_is_embedding(expert)
    if ours != theirs and base.config and expert.config:
        kinds = ("the input embedding", "a tensor of its own")
        first, second = kinds if theirs else kinds[::-1]
        yield Caution(
            expert.name,
            f"has {first} for an output head, {base.name} has {second}; the merged checkpoint has a"
            " head of its own, made of both",
            "Make sure that the embedding and the head of the result are what was meant",
        )
