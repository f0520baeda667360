"""What the shell completes beside commands and options: names of the catalog, by its files alone.

Nothing is loaded that takes time, and nothing is said where the catalog cannot be read: a shell has
no place for it.
"""

from collections.abc import Iterator
from pathlib import Path

OF_RECIPES = ("merged_checkpoint", "scores", "champion", "search")
OF_ALL = ("model", "leaderboard")


def recipes(incomplete: str) -> list[str]:
    """Return the names of the catalog's recipes that begin so."""
    return [name for name in _recipes() if name.startswith(incomplete)]


def assets(incomplete: str) -> list[str]:
    """Return names of assets that begin so: `model`, `ties/champion`."""
    known = [*OF_ALL, *(f"{recipe}/{kind}" for recipe in _recipes() for kind in OF_RECIPES)]
    return [name for name in known if name.startswith(incomplete)]


def checkpoints(incomplete: str) -> list[str]:
    """Return what a checkpoint can be called and begins so: models, and champions of recipes."""
    known = [*_models(), *(f"{recipe}/champion" for recipe in _recipes())]
    return [name for name in known if name.startswith(incomplete)]


def _folder() -> Path | None:
    from merge_ops.errors import RongheError
    from orchestration.settings import load_settings

    try:
        return load_settings().catalog
    except RongheError:
        return None


def _recipes() -> list[str]:
    folder = _folder()
    return sorted(path.stem for path in folder.glob("recipes/*.yaml")) if folder else []


def _models() -> Iterator[str]:
    from merge_ops.checkpoints.files.bounded_yaml import DocumentError, read_documents

    folder = _folder()
    try:
        document = read_documents(folder / "models.yaml")[0] if folder else None
    except (FileNotFoundError, DocumentError):
        return
    entries = document.get("models") if isinstance(document, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            yield entry["name"]
