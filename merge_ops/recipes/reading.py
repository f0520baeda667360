"""Reading recipes: YAML documents of a file, and a text of one recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from merge_ops.checkpoints.bounded_yaml import load_documents
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.recipe_check import check_recipe


def read_documents(path: Path) -> list[Any]:
    """The YAML documents of a file, not checked yet. Raises RecipeError."""
    return _documents(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(str(path), [Fault("", f"the file cannot be read ({reason})")]) from error


def parse_recipe(text: str, name: str, subject: str) -> Recipe:
    """A recipe from YAML text; `subject` is what messages call it."""
    documents = _documents(text, subject)
    if len(documents) != 1:
        problem = f"holds {len(documents)} YAML documents, and one was expected; load_stages reads"
        raise RecipeError(subject, [Fault("", f"{problem} files of several")])
    return check_recipe(documents[0], name, subject)


def _documents(text: str, subject: str) -> list[Any]:
    """Empty documents, as after a last `---`, do not count."""
    try:
        documents = load_documents(text)
    except ValueError as error:
        raise RecipeError(subject, [Fault("", str(error))]) from error
    return [each for each in documents if each is not None] or [None]
