"""What is written: recipes, their steps and sections, and every fault in them."""

from merge_ops.recipes import document, windows
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.recipe import ALL, ALL_PAIRS, Coefficient, Recipe
from merge_ops.recipes.recipe_check import check_recipe
from merge_ops.recipes.steps import Steps, load_steps

__all__ = [
    "ALL",
    "ALL_PAIRS",
    "Coefficient",
    "Recipe",
    "Steps",
    "check_recipe",
    "document",
    "load_steps",
    "parse_recipe",
    "windows",
]
