"""Reading recipes: the YAML documents of a file, and a text of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents, read_documents
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.recipe_check import check_recipe


def recipe_documents(path: Path) -> list[Any]:
    """Return the YAML documents of a file without checking them as recipes.

    Raises RecipeError where the file cannot be read or is no sound YAML.
    """
    try:
        return read_documents(path)
    except FileNotFoundError as error:
        problem = f"the file cannot be read ({error.strerror})"
        raise RecipeError(str(path), [Fault("", problem)]) from error
    except DocumentError as error:
        raise RecipeError(str(path), error.faults) from error


def parse_recipe(text: str, name: str, subject: str) -> Recipe:
    """Return the checked recipe of a YAML text.

    `subject` is the name that messages give the text. Raises RecipeError where the text is no sound
    YAML, holds not exactly one document, or is no valid recipe.
    """
    try:
        documents = load_documents(text)
    except DocumentError as error:
        raise RecipeError(subject, error.faults) from error
    if len(documents) != 1:
        problem = f"holds {len(documents)} YAML documents, and one was expected; load_steps reads"
        raise RecipeError(subject, [Fault("", f"{problem} files of several")])
    return check_recipe(documents[0], name, subject)
