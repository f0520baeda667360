"""Recipes whose numbers come from calibration texts: with the texts read, and without their fit."""

from __future__ import annotations

import dataclasses

from merge_ops.calibration.texts import TextReader
from merge_ops.recipes.moe_fewer import FIRST
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.router_policy import MERGE, RouterPolicy


def with_texts(recipe: Recipe, read: TextReader) -> Recipe:
    """Return the recipe with its calibration texts read. Raises as `read` does."""
    return dataclasses.replace(
        recipe,
        router=recipe.router and recipe.router.found(read),
        fewer=recipe.fewer and recipe.fewer.found(read),
        moe=recipe.moe and recipe.moe.found(read),
    )


def uncalibrated(recipe: Recipe) -> Recipe:
    """Return the recipe whose routers are as they are before they are fitted."""
    router, step = recipe.router, recipe.fewer
    if router is not None and router.calibrates:
        router = RouterPolicy(MERGE)
    if step is not None and step.calibrates:
        step = dataclasses.replace(step, router=FIRST)
    return dataclasses.replace(recipe, router=router, fewer=step)
