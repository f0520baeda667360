"""assets and orchestration see the rooms of the three libraries by their faces alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = ("merge_ops", "eval_ops", "resources")
OPEN = ("errors", "progress", "compute", "locks", "web_requests")
"""Modules at a library's top that others import as they are."""


def face_of(room: Path) -> set[str]:
    """What the `__init__.py` of a room names in `__all__`: names, and modules of the room."""
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def imports_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of everything that a file imports from the libraries."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if node.module.split(".")[0] in LIBRARIES:
                    yield node.lineno, node.module, alias.name


def is_public(module: str, name: str) -> bool:
    """Whether a face gives the name, or names the module that it comes from."""
    library, *rest = module.split(".")
    if not rest or rest[0] in OPEN:
        return True
    room = ROOT.joinpath(library, *rest)
    if room.is_dir():
        return name in face_of(room)
    return rest[-1] in face_of(room.parent)


def test_there_are_faces_to_see() -> None:
    assert {"load_steps", "Recipe"} <= face_of(ROOT / "merge_ops" / "recipes")
    assert is_public("merge_ops.jobs.packing", "PackingSink")
    assert not is_public("merge_ops.recipes.recipe", "Recipe")
    assert is_public("merge_ops.checkpoints.files.bounded_yaml", "read_documents")
    assert not is_public("merge_ops.checkpoints.files.byte_sources", "ByteSource")


@pytest.mark.parametrize("package", ["assets", "orchestration"])
def test_other_packages_import_from_the_faces(package: str) -> None:
    seen, deep = 0, []
    for path in sorted((ROOT / package).rglob("*.py")):
        for line, module, name in imports_of(path):
            seen += 1
            if not is_public(module, name):
                deep.append(f"{path.relative_to(ROOT)}:{line}: {name} from {module}")
    assert seen > 50
    assert deep == [], "import it from the room's __init__.py, or from a module named there"
