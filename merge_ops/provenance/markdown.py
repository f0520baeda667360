"""Strangers' words in Markdown: names and warnings that stay text, whatever stands in them.

A folder may be called `x](javascript:…)`, a tensor may hold a line end and a heading. CommonMark
0.31 (https://spec.commonmark.org/0.31.2/), tables as on GitHub.
"""

import re
from collections.abc import Sequence

from merge_ops.errors import shown

_SPECIAL = re.compile(r"([\\`*\[\]<>|~&])")
_BACKTICKS = re.compile(r"`+")


def in_markdown(text: object) -> str:
    """Return text that a page shows as it is, in a line or a cell of a table."""
    return _SPECIAL.sub(r"\\\1", shown(text))


def in_heading(result: str, models: Sequence[str]) -> str:
    """Return the heading of a card: the result's name, and the models that it is made of."""
    return f"# {in_markdown(result)}: {' + '.join(map(in_markdown, models))}"


def as_code(text: object) -> str:
    """Return text as a span of code, in a line or a cell of a table."""
    plain = shown(text).replace("|", "\\|")
    if "`" not in plain:
        return f"`{plain}`"
    fence = "`" * (_longest(plain) + 1)
    return f"{fence} {plain} {fence}"


def fenced(text: str, language: str = "") -> list[str]:
    """Return the lines of a block of code; nothing in the text can end it."""
    fence = "`" * max(3, _longest(text) + 1)
    return [f"{fence}{language}", *(shown(line) for line in text.split("\n")), fence]


def _longest(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)
