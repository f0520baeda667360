"""docs/architecture.md shows the code as it is, and the packages keep the shape it promises."""

import ast
import re
import tomllib
from pathlib import Path
from statistics import median

import pytest

from docs.architecture_page import PACKAGES, PAGE, ROOT, renewed

OUTDATED = "docs/architecture.md is not what the code is now; run `make docs`"
VAGUE = {"utils", "helpers", "common", "base", "manager"}
RESERVED = ("merge_ops/calibration", "merge_ops/compositions", "eval_ops/search", "assets/site")
C_FILES = (".c", ".h")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def drawn(name: str) -> str:
    (part,) = re.findall(
        f"<!-- {name}: written by `make docs` -->(.*?)<!-- end of {name} -->", page(), re.DOTALL
    )
    return part


def tree_of(block: str) -> set[str]:
    """The paths that an indented tree names; folders end with a slash."""
    found: set[str] = set()
    folders: list[str] = []
    for line in block.splitlines():
        match = re.match(r"( *)([\w.]+/?) ", line)
        if match is None:
            continue
        depth, name = len(match[1]) // 2, match[2]
        path = "".join([*folders[:depth], name])
        folders[depth:] = [name] if name.endswith("/") else []
        found.add(path)
    return found


def code_of(package: str) -> set[str]:
    """The same paths as they lie on the disk."""
    found: set[str] = set()
    for path in (ROOT / package).rglob("*"):
        name = path.relative_to(ROOT).as_posix()
        if path.name == "__init__.py":
            found.add(name.removesuffix("__init__.py"))
        elif path.suffix == ".py":
            found.add(name.removesuffix(".py"))
        elif path.suffix in C_FILES:
            found.add(name)
    return found


def python_files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_committed_page_is_up_to_date():
    assert page() == renewed(page()), OUTDATED


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_the_tree_and_nothing_else_is(package):
    assert tree_of(drawn(f"modules of {package}")) == code_of(package), OUTDATED


def test_the_map_names_every_package():
    folders = {path for package in PACKAGES for path in code_of(package) if path.endswith("/")}
    assert tree_of(drawn("map")) == folders, OUTDATED


def test_the_layers_are_those_of_the_import_contracts():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    told = re.split(r"^\*\*(.+)\*\*$", drawn("import rules"), flags=re.M)
    stacks = {
        name: [row.replace(" ", "") for row in re.findall("│ (.*?) *│", part)]
        for name, part in zip(told[1::2], told[2::2], strict=True)
    }
    layers = {
        each["name"]: [layer.replace(" ", "") for layer in each.get("layers", ())]
        for each in contracts
    }
    assert stacks == layers, OUTDATED


def test_a_page_without_its_marks_is_refused():
    with pytest.raises(ValueError, match=r"must hold '<!-- map: written by `make docs` -->'"):
        renewed(page().replace("<!-- end of map -->", ""))


@pytest.mark.parametrize("folder", RESERVED)
def test_a_room_that_exists_is_no_longer_called_reserved(folder):
    package, room = folder.split("/")
    reserved = f"| {package}: {room} |" in page()
    assert reserved != (ROOT / folder).exists(), f"{folder}: move its row from the reserved rooms"


def test_merge_ops_keeps_three_modules_at_its_top():
    tops = {path.stem for path in (ROOT / "merge_ops").glob("*.py")}
    assert tops == {"__init__", "errors", "progress"}


def test_modules_of_merge_ops_are_short():
    lengths = [length(path) for path in python_files("merge_ops") if path.name != "__init__.py"]
    assert median(lengths) < 140


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_330_lines(package):
    lengths = {path.relative_to(ROOT).as_posix(): length(path) for path in python_files(package)}
    assert {name: lines for name, lines in lengths.items() if lines > 330} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_are_called_by_what_they_do(package):
    names = [Path(each.rstrip("/")).stem for each in code_of(package)]
    words = {word for name in names for word in (name, *name.split("_"))}
    assert words & VAGUE == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_names_at_most_ten_public_things(package):
    named = {
        path.parent.relative_to(ROOT).as_posix(): public_names(path)
        for path in python_files(package)
        if path.name == "__init__.py"
    }
    assert {name: names for name, names in named.items() if len(names) > 10} == {}


def public_names(path: Path) -> list[str]:
    """What a package's `__all__` lists; nothing where it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(each, ast.Name) and each.id == "__all__" for each in targets):
            return ast.literal_eval(node.value)
    return []
