"""Comparisons of an earlier leaderboard, which hold as long as both sides' scores are the same.

Beside the rows of a table stands what they were made from: for each row the digests of its scores'
contents and of those it was compared with. One more row then costs its own comparisons and no
others. What was made by other arithmetic (another version of `compare`, or of numpy, whose random
streams may change) is not taken.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from eval_ops.scores.comparison import Comparison

COMPARED_BY = 4
"""Raise this when the same answers would be compared otherwise."""
SIDES = ("vs_base", "vs_best_expert", "vs_average")
"""The columns of a leaderboard's row that are comparisons."""

_FIELDS = frozenset(each.name for each in dataclasses.fields(Comparison))


@dataclass(frozen=True)
class Sources:
    """The sources of one row: digests of its own scores and of those that it is compared with.

    `others` has one for each of SIDES. None stands where there is nothing to compare with, or where
    no digest is known.
    """

    own: str | None
    others: tuple[str | None, ...]


@dataclass(frozen=True)
class KnownComparisons:
    """Comparisons by the digests of both sides' scores, and whose samples were read for them.

    `confidence` is that of all of them.
    """

    comparisons: Mapping[tuple[str, str], Comparison] = field(
        default_factory=dict[tuple[str, str], Comparison]
    )
    read: frozenset[str] = frozenset()

    def find(self, own: str | None, other: str | None, confidence: float) -> Comparison | None:
        """Return what is known of two sides at this confidence, if anything is."""
        if own is None or other is None:
            return None
        known = self.comparisons.get((own, other))
        return known if known is not None and known.confidence == confidence else None


def sources_to_json(sources: Sequence[Sources], others: Sequence[str]) -> str:
    """Write the sources of a table's rows, in their order, and of what else was read for it."""
    rows = [[each.own, *each.others] for each in sources]
    content = {**_arithmetic(), "rows": rows, "others": sorted(others)}
    return json.dumps(content, separators=(",", ":"))


def known_comparisons(table: bytes, sources: bytes) -> KnownComparisons:
    """Read the comparisons of an earlier table's rows (`to_json`) with the rows' sources.

    What does not fit together, or was made by other arithmetic, gives none: it is made again.
    """
    try:
        rows: list[dict[str, Any]] = json.loads(table)
        content: dict[str, Any] = json.loads(sources)
        if {name: content[name] for name in _arithmetic()} != _arithmetic():
            return KnownComparisons()
        found = dict(
            pair
            for row, named in zip(rows, content["rows"], strict=True)
            for pair in _pairs(row, named)
        )
        read = frozenset(each[0] for each in content["rows"] if each[0]) | {*content["others"]}
        return KnownComparisons(found, frozenset(map(str, read)))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return KnownComparisons()


def _pairs(
    row: Mapping[str, Any], named: Sequence[str | None]
) -> list[tuple[tuple[str, str], Comparison]]:
    own, *others = named
    pairs: list[tuple[tuple[str, str], Comparison]] = []
    for side, other in zip(SIDES, others, strict=True):
        written = row[side]
        if own is not None and other is not None and written is not None:
            if written.keys() != _FIELDS:
                raise KeyError(side)
            pairs.append(((own, other), Comparison(**cast(dict[str, Any], written))))
    return pairs


def _arithmetic() -> dict[str, object]:
    return {"compared_by": COMPARED_BY, "numpy": np.__version__}
