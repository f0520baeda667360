"""Moves packages of the checkout below the package `ronghe`, for a wheel (hatch_build.py).

`from assets.work.merging import merging` becomes `from ronghe.assets.work.merging import merging`,
and a string that is the dotted name of a module which is there ("orchestration.definitions")
becomes that module's new name. The syntax tree says where these stand; the rest of a file, its
lines too, stays.
"""

import ast
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "ronghe"
MOVED = ("orchestration", "assets", "resources")
LEFT_OUT = ("__pycache__", "*.pyc", "*.so")
FACE = (
    '"""Ronghe\'s command line, assets and places. The libraries are merge_ops and eval_ops."""\n'
)

_DOTTED = re.compile(rf"(?:{'|'.join(MOVED)})(?:\.[a-z_0-9]+)+")


def move(root: Path, into: Path) -> None:
    """Write the package `ronghe` below `into`: copies of the moved packages of the checkout `root`.

    Raises ValueError where an import cannot be rewritten in its place.
    """
    target = into / PACKAGE
    for name in MOVED:
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (target / "__init__.py").write_text(FACE, encoding="utf-8")
    for file in target.rglob("*.py"):
        text = file.read_bytes().decode("utf-8")
        called = file.relative_to(target).as_posix()
        file.write_bytes(rewritten(text, root, called).encode("utf-8"))


def moved_name(name: str) -> str:
    """The new name of a module, or of something in it."""
    return f"{PACKAGE}.{name}" if name.split(".")[0].split(":")[0] in MOVED else name


def rewritten(text: str, root: Path, called: str) -> str:
    """A module's text with the new names. `called` is what an error calls the file.

    Raises ValueError at `import assets.work`, which binds the name `assets`: it has no counterpart.
    """
    lines = text.split("\n")
    # From the end, so that places before a change stay where they are.
    for line, column, old in sorted(_places(ast.parse(text), root, called, lines), reverse=True):
        before, after = lines[line][:column], lines[line][column:]
        assert after.startswith(old), f"{called}:{line + 1}: {old} is not where it should be"
        lines[line] = f"{before}{PACKAGE}.{after}"
    return "\n".join(lines)


def _places(
    tree: ast.Module, root: Path, called: str, lines: list[str]
) -> Iterator[tuple[int, int, str]]:
    """Where a name to be moved begins: line and column from 0, in characters, and the name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_moved(node.module) and not node.level:
            place = _after(lines, node.lineno, node.col_offset, "from")
            yield *place, str(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if not _is_moved(alias.name):
                    continue
                if alias.asname is None:
                    raise ValueError(
                        f"{called}:{node.lineno}: write `from … import …` for {alias.name}: it lies"
                        f" below {PACKAGE} in a wheel"
                    )
                yield alias.lineno - 1, _column(lines, alias.lineno, alias.col_offset), alias.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not _DOTTED.fullmatch(node.value) or not _is_module(root, node.value):
                continue
            line, column = node.lineno - 1, _column(lines, node.lineno, node.col_offset)
            column = lines[line].index(node.value, column)
            yield line, column, node.value


def _is_moved(module: str | None) -> bool:
    return module is not None and module.split(".")[0] in MOVED


def _is_module(root: Path, name: str) -> bool:
    path = root.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _column(lines: list[str], line: int, offset: int) -> int:
    """The column in characters; the syntax tree counts bytes."""
    return len(lines[line - 1].encode()[:offset].decode())


def _after(lines: list[str], line: int, offset: int, word: str) -> tuple[int, int]:
    """Where the word after `word` begins, on the same line (a formatter never breaks it there)."""
    column = _column(lines, line, offset)
    found = re.compile(rf"{word}[ \t]+").match(lines[line - 1], column)
    assert found is not None
    return line - 1, found.end()
