"""A recipe as a document again: what a YAML file would say of one of its coefficients."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from merge_ops.recipes.recipe import Parameters, Recipe, Section
from merge_ops.recipes.renaming import renamed
from merge_ops.recipes.router_policy import MERGE, RouterPolicy
from merge_ops.recipes.structures.conversion_step import CONVERT
from merge_ops.recipes.structures.moe_fewer import FIRST
from merge_ops.recipes.structures.moe_step import MoeStep
from merge_ops.recipes.structures.window_step import fixed
from merge_ops.recipes.vocabulary_policy import BASE, UNION


def recipe_document(recipe: Recipe, values: Parameters) -> dict[str, Any]:
    """Return the recipe of one coefficient as mergekit would write it."""
    if recipe.moe:
        return _moe_document(recipe, recipe.moe)
    if recipe.window and recipe.window.found:  # the average that it is, which mergekit knows too
        recipe, values = fixed(recipe, values), {}
    document: dict[str, Any] = {"merge_method": recipe.merge_method}
    if recipe.window and not recipe.window.found:
        document = recipe.window.written  # whose steps are not known, and so no models
    if recipe.symmetry:
        document |= recipe.symmetry.written
    if recipe.conversion:
        document[CONVERT] = recipe.conversion
    if recipe.router:
        document |= recipe.router.written
    if recipe.expand:
        document |= recipe.expand.written
    if recipe.vocabulary:
        document |= recipe.vocabulary.written
    if recipe.fewer:
        document |= recipe.fewer.written
    if recipe.base_model:
        document["base_model"] = recipe.base_model
    if recipe.modules:
        document["modules"] = {name: _section(each) for name, each in recipe.modules.items()}
    else:
        document |= _section(recipe.section)
    parameters = {**recipe.parameters, **values}
    if parameters and not recipe.window:
        document["parameters"] = parameters
    if recipe.dtype:
        document["dtype"] = recipe.dtype
    if recipe.out_dtype:
        document["out_dtype"] = recipe.out_dtype
    if recipe.tokenizer:
        document |= recipe.tokenizer.written
    if recipe.chat_template:
        document["chat_template"] = recipe.chat_template
    if recipe.method.random:
        document["seed"] = recipe.seed
    return document


def _moe_document(recipe: Recipe, step: MoeStep) -> dict[str, Any]:
    """A mergekit-moe file; the seed draws gates and noise."""
    noisy = any(each.noise_scale for each in step.all_experts)
    seeded = noisy or not step.needs_prompts
    dtype = {"dtype": recipe.dtype} if recipe.dtype else {}
    return {**step.written, **dtype, **({"seed": recipe.seed} if seeded else {})}


def nameless_document(
    recipe: Recipe, values: Parameters, stays: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the recipe of one coefficient with numbers for its models, and which name each has.

    They are called `#1`, `#2`, … in the order of `referenced_models`, but for the names that stay.
    Where the recipe says something of the tokenizer, a model that is called as a word of that is
    (`base`, `union`) stays too: it would be taken for the word, or the word for it.
    """
    kept = {*stays, *((BASE, UNION) if recipe.tokenizer else ())}
    named = enumerate(recipe.referenced_models, start=1)
    names = {name: name if name in kept else f"#{number}" for number, name in named}
    return recipe_document(renamed(recipe, names), values), names


def with_names(recipe: Recipe, names: Mapping[str, str]) -> Recipe:
    """Return a recipe whose numbered models are called as `names` has it for their numbers."""
    return renamed(recipe, {number: n for number, n in names.items() if number.startswith("#")})


def _section(section: Section) -> dict[str, Any]:
    """`models` or `slices`, and the module's own parameters."""
    table: dict[str, Any] = {}
    if section.models:
        table["models"] = [_with(each.parameters, model=each.model) for each in section.models]
    if section.slices:
        table["slices"] = [
            _with(
                entry.parameters,
                **({"base_model": entry.base_model} if entry.base_model else {}),
                sources=[
                    _with(each.parameters, model=each.model, layer_range=list(each.layer_range))
                    for each in entry.sources
                ],
            )
            for entry in section.slices
        ]
    return _with(section.parameters, **table)


def _with(parameters: Parameters, **table: Any) -> dict[str, Any]:
    return {**table, "parameters": dict(parameters)} if parameters else table


def uncalibrated(recipe: Recipe) -> Recipe:
    """Return the recipe whose routers are as they are before they are fitted."""
    router, step = recipe.router, recipe.fewer
    if router is not None and router.calibrates:
        router = RouterPolicy(MERGE)
    if step is not None and step.calibrates:
        step = dataclasses.replace(step, router=FIRST)
    return dataclasses.replace(recipe, router=router, fewer=step)
