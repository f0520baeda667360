"""Recipes whose numbers come from calibration texts, with the texts read."""

from __future__ import annotations

import dataclasses

from merge_ops.calibration.texts import TextReader
from merge_ops.recipes.recipe import Recipe


def with_texts(recipe: Recipe, read: TextReader) -> Recipe:
    """Return the recipe with its calibration texts read. Raises as `read` does."""
    return dataclasses.replace(
        recipe,
        router=recipe.router and recipe.router.found(read),
        fewer=recipe.fewer and recipe.fewer.found(read),
        moe=recipe.moe and recipe.moe.found(read),
    )
