"""Renews the drawn parts of docs/architecture.md from the code: map, modules, import rules.

    make docs
    python -m docs.architecture_page

The map and the modules come from the packages' folders and the first sentence of each docstring,
the import rules from the import-linter contracts in pyproject.toml. The prose around them is
written by hand. tests/docs holds the committed page against the code.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
PAGE = FOLDER / "architecture.md"
PACKAGES = ("merge_ops", "eval_ops", "resources", "assets", "orchestration")
C_SUFFIXES = (".c", ".h")
NAME_WIDTH = 28  # columns before the sentences; the longest module name and its indent fit
MARKS = ("<!-- {name}: written by `make docs` -->", "<!-- end of {name} -->")


def renewed(text: str) -> str:
    """The page with each of its drawn parts written anew; the prose stays as it is.

    Raises ValueError where the page has not exactly one pair of marks for a part.
    """
    for name, part in parts().items():
        first, last = (mark.format(name=name) for mark in MARKS)
        pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
        if len(pattern.findall(text)) != 1:
            raise ValueError(f"{PAGE.name} must hold {first!r} and {last!r} once, in this order")
        block = f"{first}\n\n{part}\n\n{last}"
        text = pattern.sub(lambda _, block=block: block, text)
    return text


def parts() -> dict[str, str]:
    """Every drawn part of the page, as Markdown, by the name in its marks."""
    drawn = {"map": fenced([line for package in PACKAGES for line in package_map(package)][:-1])}
    drawn |= {f"modules of {name}": fenced([*module_lines(ROOT / name)]) for name in PACKAGES}
    return {**drawn, "import rules": import_rules(contracts())}


def fenced(lines: Sequence[str]) -> str:
    """Lines as a block of plain text."""
    return "\n".join(("```text", *lines, "```"))


def package_map(package: str) -> Iterator[str]:
    """One package in short: a line for itself, one for each package inside it, an empty one.

    Where a contract has layers for the package, the highest layer comes first.
    """
    top = ROOT / package
    for folder in (top, *inner_packages(top, ranks(package))):
        depth = len(folder.relative_to(top).parts)
        yield row(depth, f"{folder.name}/", sentence(folder / "__init__.py"))
    yield ""


def ranks(package: str) -> dict[str, int]:
    """Places of a package's inner packages in its layers, 0 for the highest; empty without any."""
    found: dict[str, int] = {}
    for rule in contracts():
        if rule["type"] == "layers" and package in rule.get("containers", ()):
            for place, layer in enumerate(layers(rule)):
                found |= {name.strip("() "): place for name in re.split("[|:]", layer)}
    return found


def module_lines(folder: Path, depth: int = 0) -> Iterator[str]:
    """A package with everything in it, one line each: its own files first, then its packages."""
    yield row(depth, f"{folder.name}/", sentence(folder / "__init__.py"))
    for path in (*modules(folder), *c_sources(folder)):
        name = path.name if path.suffix in C_SUFFIXES else path.stem
        yield row(depth + 1, name, sentence(path))
    for inner in child_packages(folder):
        yield from module_lines(inner, depth + 1)


def row(depth: int, name: str, text: str) -> str:
    """One line of a tree: the name, indented by its depth, and what is there."""
    return f"{'  ' * depth + name:<{NAME_WIDTH}} {text}".rstrip()


def modules(folder: Path) -> list[Path]:
    """The Python files of a package but its `__init__.py`, sorted."""
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def c_sources(folder: Path) -> list[Path]:
    """The C files of a package, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix in C_SUFFIXES)


def child_packages(folder: Path) -> list[Path]:
    """The packages right inside a package, sorted."""
    return sorted(path.parent for path in folder.glob("*/__init__.py"))


def inner_packages(folder: Path, places: Mapping[str, int]) -> list[Path]:
    """All packages inside a package, by their places, each before those inside it."""
    found: list[Path] = []
    for inner in sorted(child_packages(folder), key=lambda each: places.get(each.name, -1)):
        found += [inner, *inner_packages(inner, {})]
    return found


def sentence(path: Path) -> str:
    """The first sentence of a Python file's docstring or of a C file's first comment.

    Raises ValueError where there is none: every file says what it is for.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix in C_SUFFIXES:
        comment = re.match(r"\s*/\*(.*?)\*/", text, re.DOTALL)
        said = re.sub(r"^\s*\*", "", comment.group(1), flags=re.MULTILINE) if comment else ""
    else:
        said = ast.get_docstring(ast.parse(text)) or ""
    paragraph = " ".join(re.split(r"\n\s*\n", said.strip())[0].split())
    if not paragraph:
        raise ValueError(f"{path} does not say what it is for")
    return re.split(r"(?<=[.!?]) (?=[A-Z`(])", paragraph)[0]


def contracts() -> list[Mapping[str, Any]]:
    """The import-linter contracts of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings["tool"]["importlinter"]["contracts"]


def import_rules(rules: Sequence[Mapping[str, Any]]) -> str:
    """Each contract by its name, from the whole house to single rooms."""
    ordered = sorted(rules, key=depth_of)
    return "\n\n".join(f"**{rule['name']}**\n\n{import_rule(rule)}" for rule in ordered)


def depth_of(rule: Mapping[str, Any]) -> int:
    """How far inside a contract is at home: layers of all, what is forbidden, inner layers."""
    containers = rule.get("containers", ())
    if rule["type"] == "layers" and not containers:
        return 0
    return 2 + min((name.count(".") for name in containers), default=-1)


def import_rule(rule: Mapping[str, Any]) -> str:
    """One contract, drawn where it is one of layers."""
    exceptions = codes([each.replace("->", "→") for each in rule.get("ignore_imports", ())])
    if rule["type"] == "layers":
        drawing = fenced(stack(layers(rule)))
        return f"{drawing}\n\nExcepted: {exceptions}." if exceptions else drawing
    but = f" Excepted: {exceptions}." if exceptions else ""
    if rule["type"] == "forbidden":
        return f"{codes(rule['source_modules'])}: no {codes(rule['forbidden_modules'])}.{but}"
    names = codes(rule.get("modules", rule.get("source_modules", ())))
    return f"{rule['type']}: {names}.{but}"


def codes(names: Sequence[str]) -> str:
    """Names as inline code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def layers(rule: Mapping[str, Any]) -> list[str]:
    """The layers of a contract, highest first, spaces made even: `stream | provenance`."""
    found = [" ".join(str(layer).split()) for layer in rule["layers"]]
    return [re.sub(r"\s*([|:])\s*", r" \1 ", layer) for layer in found]


def stack(names: Sequence[str]) -> list[str]:
    """Layers as boxes one upon the other, the highest first."""
    width = max(map(len, names))
    between = f"├{'─' * (width + 2)}┤"
    lines = [f"┌{'─' * (width + 2)}┐"]
    for number, name in enumerate(names):
        lines += [between] if number else []
        lines.append(f"│ {name:<{width}} │")
    return [*lines, f"└{'─' * (width + 2)}┘"]


def main() -> None:
    """Write the page."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
