"""What is written: recipes, their steps and sections, and every fault in them."""

from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.recipe import ALL, ALL_PAIRS, Coefficient, Recipe, set_id
from merge_ops.recipes.stages import Stages, load_stages

__all__ = [
    "ALL",
    "ALL_PAIRS",
    "Coefficient",
    "Recipe",
    "Stages",
    "load_stages",
    "parse_recipe",
    "set_id",
]
