"""What recipes and models are called for people, by the catalog's files alone: `title:` in them.

Nothing is loaded that takes time, and of a file that cannot be read there is no title: whoever
reads the catalog for work says what is wrong with it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Titles:
    """The titles of recipes and of models, by name; those without one are left out."""

    recipes: Mapping[str, str] = field(default_factory=dict[str, str])
    models: Mapping[str, str] = field(default_factory=dict[str, str])


def read_titles(folder: Path) -> Titles:
    """Read the titles that a catalog's folder gives; none where there is no such folder."""
    recipes: dict[str, str] = {}
    for path in sorted(folder.glob("recipes/*.yaml")):
        documents = _documents(path)
        title = documents[-1].get("title") if documents else None
        if isinstance(title, str) and title.strip():
            recipes[path.stem] = title.strip()
    return Titles(recipes, dict(_of_models(folder / "models.yaml")))


def _of_models(path: Path) -> Iterator[tuple[str, str]]:
    documents = _documents(path)
    entries = documents[0].get("models") if documents else None
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        name, title = entry.get("name"), entry.get("title")
        if isinstance(name, str) and isinstance(title, str) and title.strip():
            yield name, title.strip()


def _documents(path: Path) -> list[Mapping[str, Any]]:
    from merge_ops.checkpoints.files.bounded_yaml import DocumentError, read_documents

    try:
        return [each for each in read_documents(path) if isinstance(each, dict)]
    except (FileNotFoundError, DocumentError):
        return []
