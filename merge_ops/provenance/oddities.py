"""Signs that an expert is odd: looked at before a merge, and never a verdict.

One poisoned expert is enough to poison a merge (BadMerging, Zhang et al. 2024, arXiv:2408.07362),
and a broken one to spoil it. What weights alone show is how an expert differs from its siblings and
its matrices from one another: a task vector that is much longer, one matrix that moved much further
than others of its kind, a change of rank one, single entries that stand out, a few rows of an
embedding (the tokens of a trigger), and a direction against that of the others. Each has harmless
reasons as well, so a person is told where to look.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from merge_ops.errors import Caution

Rows = Sequence[Mapping[str, Any]]
"""The tensors of one task vector, as `jobs.statistics.TensorChange` has them, as plain data."""

LONGER = 5.0  # times the median norm of the siblings
SHORTER = 0.02  # of the median norm: nearly nothing was learned
FURTHER = 8.0  # times the median of tensors of its kind, in ‖δ‖ / ‖base‖
RANK_ONE = 0.5  # share of the energy in one direction
TIMES_USUAL = 4.0  # against the median of the expert's other matrices
STANDS_OUT = 150.0  # largest |δ| against its root mean square; normal numbers reach 6
FEW_ROWS = 64  # rows of an embedding that are few
AGAINST = -0.2  # cosine of two task vectors
MOST_NAMED = 3
_NUMBER = re.compile(r"\.\d+\.")
ADVICE = (
    "It may be meant (new tokens, another learning rate, a small adapter); look at where it comes"
    " from, and score the expert alone and at half its weight before the merge is used"
)


def odd_signs(
    experts: Mapping[str, Rows], cosines: Sequence[Sequence[float | None]] | None = None
) -> list[Caution]:
    """Return the signs that experts give, by their task vectors' statistics.

    `cosines` are those between whole task vectors, in the order of `experts`.
    """
    cautions = [*_lengths(experts)]
    for name, rows in experts.items():
        cautions += _further(name, rows)
        cautions += _rank_one(name, rows)
        cautions += _outstanding(name, rows)
        cautions += _rows_of_few_tokens(name, rows)
    if cosines is not None:
        cautions += _against(list(experts), cosines)
    return cautions


def _lengths(experts: Mapping[str, Rows]) -> Iterator[Caution]:
    """Task vectors that are much longer or shorter than those of the others."""
    norms = {
        name: math.sqrt(math.fsum(float(row["norm"] or 0.0) ** 2 for row in rows))
        for name, rows in experts.items()
    }
    for name, norm in norms.items():
        others = [each for other, each in norms.items() if other != name and each > 0]
        if not others:
            continue
        usual = median(others)
        if norm > LONGER * usual:
            problem = f"changed {norm / usual:.0f} times as much as the others of its set"
            yield Caution(name, f"{problem}: it outweighs them at equal weights", ADVICE)
        elif 0 < norm < SHORTER * usual:
            problem = f"changed {norm / usual:.1%} of what the others of its set did"
            yield Caution(name, f"{problem}: it is hardly heard at equal weights", ADVICE)


def _further(name: str, rows: Rows) -> Iterator[Caution]:
    """Tensors that moved much further than those of their kind in other layers."""
    kinds: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        moved = row.get("relative_norm")
        if row.get("layer") is not None and moved is not None:
            kinds.setdefault(_kind(str(row["name"])), []).append((str(row["name"]), float(moved)))
    odd: list[tuple[float, str]] = []
    for members in kinds.values():
        usual = median(moved for _, moved in members)
        odd += [(moved / usual, tensor) for tensor, moved in members if 0 < FURTHER * usual < moved]
    if odd:
        times, tensor = max(odd)
        problem = f"moved '{tensor}' {times:.0f} times as far as its other layers"
        yield Caution(name, f"{problem}{_and_more(len(odd))}", ADVICE)


def _rank_one(name: str, rows: Rows) -> Iterator[Caution]:
    """Matrices whose change is mostly one direction, where the expert's others are not."""
    shares = {
        str(row["name"]): float(row["rank_one"])
        for row in rows
        if row.get("rank_one") is not None and row.get("norm")
    }
    if len(shares) < 3:
        return
    usual = median(shares.values())
    odd = [
        (share, tensor)
        for tensor, share in shares.items()
        if share > RANK_ONE and share > TIMES_USUAL * usual
    ]
    if odd:
        share, tensor = max(odd)
        problem = f"changed '{tensor}' mostly ({share:.0%}) in one direction, others {usual:.0%}"
        yield Caution(name, f"{problem}{_and_more(len(odd))}", ADVICE)


def _outstanding(name: str, rows: Rows) -> Iterator[Caution]:
    """Single entries that stand far out of the change of their tensor."""
    odd: list[tuple[float, str]] = []
    for row in rows:
        norm, count = float(row.get("norm") or 0.0), int(row.get("n") or 0)
        changed = int(row.get("changed") or 0)
        if norm > 0 and changed > count // 10 > 1000:  # what few entries changed is told by rows
            ratio = float(row.get("max_abs") or 0.0) / (norm / math.sqrt(count))
            if ratio > STANDS_OUT:
                odd.append((ratio, str(row["name"])))
    if odd:
        ratio, tensor = max(odd)
        problem = f"changed single entries of '{tensor}' by {ratio:.0f} times the usual"
        yield Caution(name, f"{problem}{_and_more(len(odd))}", ADVICE)


def _rows_of_few_tokens(name: str, rows: Rows) -> Iterator[Caution]:
    """A few rows of an embedding or a head that changed far more than the others."""
    for row in rows:
        count = int(row.get("odd_rows") or 0)
        if 0 < count <= FEW_ROWS:
            first = ", ".join(map(str, list(row.get("first_odd_rows") or ())[:MOST_NAMED]))
            problem = (
                f"changed {count} rows of '{row['name']}' far more than the others (tokens {first}"
                f"{' …' if count > MOST_NAMED else ''})"
            )
            yield Caution(name, f"{problem}: these tokens may mean something to it alone", ADVICE)


def _against(names: Sequence[str], cosines: Sequence[Sequence[float | None]]) -> Iterator[Caution]:
    """Experts whose change goes against that of the others."""
    for place, name in enumerate(names):
        own = [value for other, value in enumerate(cosines[place]) if other != place]
        known = [value for value in own if value is not None]
        if known and max(known) < AGAINST:
            problem = f"changed against all others of its set (cosine {max(known):.2f} at most)"
            yield Caution(name, f"{problem}: they undo one another", ADVICE)


def _kind(tensor: str) -> str:
    return _NUMBER.sub(".#.", tensor, count=1)


def _and_more(count: int) -> str:
    return f", and {count - 1} more so" if count > 1 else ""
