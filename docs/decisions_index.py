"""Writes the index at the top of docs/decisions.md from its entries.

    make docs
    python -m docs.decisions_index

Under its heading every entry has a line `*Theme · status*`. The status is `holds`,
`negative result`, `superseded by [title](#anchor)` or `partly superseded by …: in what`. Entries
without such a line are listed last.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

PAGE = Path(__file__).parent / "decisions.md"
THEMES = (
    "The house", "Stream and memory", "Thresholds, sums and randomness", "Loops and devices",
    "Methods", "Recipes", "Inputs and outputs", "The store", "S3", "Catalog and Dagster",
    "Evaluation", "Command line and errors", "Deployment", "Tests, benchmarks and pages",
)  # fmt: skip
UNSORTED = "Not sorted yet"
MARKS = ("<!-- index: written by `make docs` -->", "<!-- end of index -->")


@dataclass(frozen=True)
class Entry:
    """One decision: its heading, the anchor that GitHub gives it, theme and status."""

    heading: str
    anchor: str
    theme: str
    status: str

    @property
    def line(self) -> str:
        """Its line in the index; the date is left out, as entries are in order."""
        title = self.heading.partition(" · ")[2] or self.heading
        told = "" if self.status == "holds" else f": {self.status}"
        return f"- [{title}](#{self.anchor}){told}"


def entries(text: str) -> list[Entry]:
    """Every decision of the page, in order. Raises ValueError for a theme that is none."""
    found: list[Entry] = []
    seen: Counter[str] = Counter()
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        anchor = slug(heading)
        seen[anchor] += 1
        if seen[anchor] > 1:
            anchor = f"{anchor}-{seen[anchor] - 1}"
        note = re.match(r"\s*\*([^*·]+) · ([^*]+)\*\n", body)
        theme, status = (note[1], note[2]) if note else (UNSORTED, "holds")
        if theme not in (*THEMES, UNSORTED):
            raise ValueError(f"{heading}: {theme!r} is no theme; choose of {', '.join(THEMES)}")
        found.append(Entry(heading, anchor, theme, status))
    return found


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it: letters, digits, `_` and `-`; spaces as `-`."""
    kept = (c for c in heading.lower() if c in "-_ " or category(c)[0] in "LM" or c.isdecimal())
    return "".join(kept).replace(" ", "-")


def renewed(text: str) -> str:
    """The page with its index written anew."""
    first, last = MARKS
    before, _, rest = text.partition(first)
    _, _, after = rest.partition(last)
    decisions = entries(after)
    parts: list[str] = []
    for theme in (*THEMES, UNSORTED):
        lines = [each.line for each in decisions if each.theme == theme]
        if lines:
            parts.append("\n".join([f"**{theme}**", "", *lines]))
    return f"{before}{first}\n\n" + "\n\n".join(parts) + f"\n\n{last}{after}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
