"""A recipe as a document again: what a YAML file would say of one of its coefficients."""

from __future__ import annotations

from typing import Any

from merge_ops.recipes.recipe import Parameters, Recipe, Section


def recipe_document(recipe: Recipe, values: Parameters) -> dict[str, Any]:
    """Return the recipe of one coefficient as mergekit would write it."""
    document: dict[str, Any] = {"merge_method": recipe.merge_method}
    if recipe.base_model:
        document["base_model"] = recipe.base_model
    if recipe.modules:
        document["modules"] = {name: _section(each) for name, each in recipe.modules.items()}
    else:
        document |= _section(recipe.section)
    parameters = {**recipe.parameters, **values}
    if parameters:
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
