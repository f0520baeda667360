"""docs/timeouts.md and the code name the same bounds by time."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("resources", "merge_ops", "eval_ops", "assets", "orchestration")
CLOCKS = re.compile(r"\bsleep\(|\bmonotonic\b|timeout=\w|_seconds=\d|\.wait\(\w|RetryPolicy\(")


def rows() -> list[tuple[str, list[str]]]:
    """The file of each row of the page, and the constants that the row names."""
    found: list[tuple[str, list[str]]] = []
    for line in (ROOT / "docs/timeouts.md").read_text().splitlines():
        names = re.findall(r"`([^`]+)`", line.split("|")[1] if line.startswith("| ") else "")
        file = next((name for name in names if name.endswith(".py") and "/" in name), None)
        if file:
            found.append((file, [name for name in names if re.fullmatch(r"_?[A-Z][A-Z_]+", name)]))
    return found


def test_what_the_page_names_is_there() -> None:
    named = rows()
    assert len(named) > 10
    for file, constants in named:
        text = (ROOT / file).read_text()
        assert [
            name for name in constants if f"{name} " not in text and f"{name}," not in text
        ] == []


def test_no_clock_is_missing_from_the_page() -> None:
    page = (ROOT / "docs/timeouts.md").read_text()
    users = [
        path.relative_to(ROOT)
        for room in PRODUCT
        for path in sorted((ROOT / room).rglob("*.py"))
        if CLOCKS.search(path.read_text())
    ]
    assert [str(path) for path in users if path.name not in page] == []
    assert len(users) > 5
