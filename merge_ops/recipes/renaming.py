"""A recipe whose models go by other names: those of models that were written in two ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import ModelEntry, Recipe, Section, SliceEntry, SliceSource
from merge_ops.recipes.vocabulary_policy import TokenizerPolicy, policy_of

Names = Mapping[str, str]


def renamed(recipe: Recipe, names: Names) -> Recipe:
    """Return the recipe with some models under the name that `names` has for them.

    Raises RecipeError where one model then stands twice among those that are merged with one
    another, as for one name that is written twice.
    """
    faults = [fault for each in _named_sections(recipe) for fault in _twice(*each, names)]
    if faults:
        raise RecipeError(recipe.subject, faults)
    section = _section(recipe.section, names)
    return dataclasses.replace(
        recipe,
        models=section.models,
        slices=section.slices,
        modules={key: _section(each, names) for key, each in recipe.modules.items()},
        base_model=_name(recipe.base_model, names),
        tokenizer=_policy(recipe.tokenizer, names),
        symmetry=recipe.symmetry
        and dataclasses.replace(recipe.symmetry, base=_name(recipe.symmetry.base, names)),
        router=recipe.router and recipe.router.renamed(names),
        moe=recipe.moe and recipe.moe.renamed(names),
        window=recipe.window and recipe.window.renamed(names),
        vocabulary=recipe.vocabulary and recipe.vocabulary.renamed(names),
    )


def _name(name: str | None, names: Names) -> str | None:
    return name if name is None else names.get(name, name)


def _named_sections(recipe: Recipe) -> Iterator[tuple[str, Sequence[ModelEntry | SliceSource]]]:
    """Every list of models that are merged with one another, with its place."""
    sections = recipe.modules.values() if recipe.modules else (recipe.section,)
    for section in sections:
        if section.models:
            yield f"{section.where}models", section.models
        for number, entry in enumerate(section.slices):
            yield f"{section.where}slices[{number}].sources", entry.sources


def _twice(
    where: str, entries: Sequence[ModelEntry | SliceSource], names: Names
) -> Iterator[Fault]:
    seen: dict[str, tuple[int, str]] = {}
    for position, entry in enumerate(entries):
        first, spelled = seen.setdefault(names.get(entry.model, entry.model), (position, ""))
        spelled = entries[first].model
        if first != position:
            problem = f"is {entry.model!r}, which is the same model as {spelled!r} in"
            yield Fault(
                f"{where}[{position}].model",
                f"{problem} {where}[{first}]; a model is listed once, or it would count twice",
            )


def _section(section: Section, names: Names) -> Section:
    return dataclasses.replace(
        section,
        models=tuple(
            dataclasses.replace(each, model=names.get(each.model, each.model))
            for each in section.models
        ),
        slices=tuple(_slice(each, names) for each in section.slices),
    )


def _slice(entry: SliceEntry, names: Names) -> SliceEntry:
    sources = [
        dataclasses.replace(each, model=names.get(each.model, each.model)) for each in entry.sources
    ]
    return dataclasses.replace(
        entry, sources=tuple(sources), base_model=_name(entry.base_model, names)
    )


def _policy(policy: TokenizerPolicy | None, names: Names) -> TokenizerPolicy | None:
    """The policy of the renamed document, as it was written in the first place."""
    return policy if policy is None else policy_of(_written(policy.written, names))


def _written(written: Mapping[str, Any], names: Names) -> dict[str, Any]:
    if "tokenizer_source" in written:
        return {"tokenizer_source": _name(written["tokenizer_source"], names)}
    table = dict(cast("Mapping[str, Any]", written["tokenizer"]))
    if table.get("source") is not None:
        table["source"] = _name(table["source"], names)
    if table.get("tokens"):
        rules = cast("Mapping[str, Mapping[str, Any]]", table["tokens"])
        table["tokens"] = {token: _rule(rule, names) for token, rule in rules.items()}
    return {"tokenizer": table}


def _rule(rule: Mapping[str, Any], names: Names) -> dict[str, Any]:
    source = rule.get("source")
    if isinstance(source, str):
        return {**rule, "source": _name(source, names)}
    if isinstance(source, dict) and "model" in source:
        row = cast("dict[str, Any]", source)
        return {**rule, "source": {**row, "model": _name(row["model"], names)}}
    return dict(rule)
