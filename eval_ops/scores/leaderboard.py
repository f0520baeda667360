"""The leaderboard: coefficients are chosen on validation items, rows report test items."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from eval_ops.errors import PairingError
from eval_ops.scores.comparison import Comparison, compare
from eval_ops.scores.imported import ImportedScore as ImportedScore
from eval_ops.scores.imported import imported_to_json as imported_to_json
from eval_ops.scores.imported import read_imported as read_imported
from eval_ops.scores.known_comparisons import SIDES, KnownComparisons, Sources
from eval_ops.scores.known_comparisons import known_comparisons as known_comparisons
from eval_ops.scores.known_comparisons import sources_to_json as sources_to_json
from eval_ops.scores.multiplicity import Optimism as Optimism
from eval_ops.scores.multiplicity import optimism as optimism
from eval_ops.scores.scores import Mean, Score, SuiteScores

Kind = Literal["base", "expert", "average", "candidate"]
KINDS: tuple[Kind, ...] = ("base", "expert", "average", "candidate")
_SCORE_FIELDS = tuple(each.name for each in fields(Score))


@dataclass(frozen=True)
class Entry:
    """One scored checkpoint. `name` is a model's name, or for a merged checkpoint free text.

    Merged checkpoints (kinds average and candidate) have a `recipe`, the `experts` of their set
    and a `coefficient` id. `digest` is the checkpoint's, `source` that of the scores' contents.
    """

    kind: Kind
    name: str
    scores: SuiteScores
    recipe: str | None = None
    experts: tuple[str, ...] = ()
    coefficient: str | None = None
    digest: str | None = None
    source: str | None = None

    @property
    def expert_set(self) -> str:
        """The set's id: sorted names joined by `+`; empty for base and experts."""
        return "+".join(sorted(self.experts))

    @property
    def label(self) -> str:
        """What a table calls it: `ties herbs+idioms density=0.3`, or a model's name."""
        parts = (self.recipe or self.kind, self.expert_set, self.coefficient or "")
        if not self.experts:
            return self.name
        return " ".join(part for part in parts if part and part != "default")


@dataclass(frozen=True)
class Row:
    """One row of the leaderboard; all values but `validation_mean` are of test items.

    A comparison is None where there is nothing to compare with, or it would be with itself.
    """

    kind: Kind
    label: str
    recipe: str | None
    experts: tuple[str, ...]
    coefficient: str | None
    digest: str | None
    benchmarks: Mapping[str, Score]
    mean: Mean
    validation_mean: float | None
    vs_base: Comparison | None
    vs_best_expert: Comparison | None
    vs_average: Comparison | None


@dataclass(frozen=True)
class CoefficientPoint:
    """One coefficient of a sweep with its means on both kinds of items."""

    coefficient: str
    validation: Mean
    test: Mean


def choose(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Keep, of each recipe and expert set, the coefficient with the best validation mean.

    Ties go to the coefficient id that sorts first. Base and experts stay as they are. Raises
    PairingError when several coefficients have to be told apart without validation items.
    """
    chosen: dict[tuple[str, ...], list[Entry]] = {}
    for entry in entries:
        merged = entry.kind in ("average", "candidate")
        key = (entry.kind, entry.recipe or "", entry.expert_set) if merged else (entry.kind,)
        chosen.setdefault(key if merged else (*key, entry.name), []).append(entry)
    return tuple(group[0] if len(group) == 1 else _best(group) for group in chosen.values())


def best_first(entry: Entry, split: str = "validation") -> float:
    """Return what sorts entries by their means, the best first, and those of NaN last.

    Raises PairingError where the suite has no items of this split.
    """
    mean = entry.scores.mean(split).value
    return -mean if math.isfinite(mean) else math.inf


def rows(
    entries: Iterable[Entry],
    confidence: float = 0.95,
    known: KnownComparisons | None = None,
) -> tuple[Row, ...]:
    """Return the leaderboard's rows, best test mean first, after `choose`.

    Each merged checkpoint is compared with the base, with the expert of the best test mean and
    with the plain average of its own set, where that is not `known` already. Raises PairingError
    when entries were scored on different suites.
    """
    return tuple(row for row, _ in rows_with_sources(entries, confidence, known))


def rows_with_sources(
    entries: Iterable[Entry], confidence: float = 0.95, known: KnownComparisons | None = None
) -> list[tuple[Row, Sources]]:
    """Return the leaderboard's rows, as `rows` does, and what each was made from."""
    ordered = sorted(choose(entries), key=_rank)
    base = next((entry for entry in ordered if entry.kind == "base"), None)
    best = next((entry for entry in ordered if entry.kind == "expert"), None)
    averages = {entry.expert_set: entry for entry in ordered if entry.kind == "average"}
    table: list[tuple[Row, Sources]] = []
    for entry in ordered:
        average = averages.get(entry.expert_set) if entry.experts else None
        others = [None if other is entry else other for other in (base, best, average)]
        sources = Sources(entry.source, tuple(each.source if each else None for each in others))
        compared = [_compared(entry, other, confidence, known) for other in others]
        table.append((_row(entry, dict(zip(SIDES, compared, strict=True))), sources))
        if entry is not base and entry is not best:
            for each in (entry, average):
                if each is not None:
                    each.scores.forget_samples()
    return table


def _compared(
    entry: Entry, other: Entry | None, confidence: float, known: KnownComparisons | None
) -> Comparison | None:
    if other is None:
        return None
    found = known.find(entry.source, other.source, confidence) if known else None
    return found or compare(entry.scores, other.scores, confidence=confidence)


def _row(entry: Entry, compared: Mapping[str, Comparison | None]) -> Row:
    return Row(
        kind=entry.kind,
        label=entry.label,
        recipe=entry.recipe,
        experts=entry.experts,
        coefficient=entry.coefficient,
        digest=entry.digest,
        benchmarks={name: entry.scores.score(name) for name in entry.scores.benchmarks},
        mean=entry.scores.mean(),
        validation_mean=_validation_mean(entry),
        **compared,
    )


def coefficient_points(entries: Iterable[Entry]) -> tuple[CoefficientPoint, ...]:
    """Return the means of a sweep's entries (one recipe, one set), in the order of their numbers.

    Raises PairingError when the suite has no validation items.
    """
    points = [
        CoefficientPoint(
            entry.coefficient or "default", entry.scores.mean("validation"), entry.scores.mean()
        )
        for entry in entries
    ]
    return tuple(sorted(points, key=lambda point: _numbers_first(point.coefficient)))


def to_markdown(table: Sequence[Row], limit: int | None = None) -> str:
    """Write the rows (the first `limit`, if given) as a Markdown table with a line of notes."""
    if not table:
        return "No checkpoint has been scored yet.\n"
    names = list(table[0].benchmarks)
    heads = ["#", "model", "kind", *names, "mean", "vs base", "vs best expert", "vs average"]
    lines = [
        _line(heads),
        _line(["---:", "---", "---", *["---:"] * (len(names) + 1), *["---"] * 3]),
    ]
    for number, row in enumerate(table[:limit], start=1):
        values = [percent(row.benchmarks[name]) for name in names]
        verdicts = [_verdict(c) for c in (row.vs_base, row.vs_best_expert, row.vs_average)]
        label = row.label.replace("|", "\\|")
        lines.append(_line([str(number), label, row.kind, *values, percent(row.mean), *verdicts]))
    hidden = 0 if limit is None else max(0, len(table) - limit)
    if hidden:
        lines.append(f"\n{hidden} more rows are not shown.")
    return "\n".join(lines) + f"\n\n{_notes(table)}\n"


def to_json(table: Sequence[Row]) -> str:
    """Write the rows as a JSON list, one a line."""
    return "[\n" + ",\n".join(json.dumps(_plain(row)) for row in table) + "\n]"


def percent(score: Score | Mean) -> str:
    """Write a share and its interval in percent: `72.5 (64.1–79.7)`."""
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}–{100 * score.high:.1f})"


def _plain(row: Row) -> dict[str, object]:
    """A row as JSON has it: what `dataclasses.asdict` gives, without a copy of every value."""
    sides: dict[str, Comparison | None] = {side: getattr(row, side) for side in SIDES}
    compared = {side: vars(each) if each else None for side, each in sides.items()}
    scores = {
        name: {field: getattr(score, field) for field in _SCORE_FIELDS}
        for name, score in row.benchmarks.items()
    }
    return {**vars(row), "benchmarks": scores, "mean": row.mean._asdict(), **compared}


def _best(group: Sequence[Entry]) -> Entry:
    try:
        return min(group, key=lambda entry: (best_first(entry), entry.coefficient or ""))
    except PairingError as error:
        raise PairingError(
            f"{len(group)} coefficients of '{group[0].recipe}' ({group[0].expert_set}) cannot be "
            f"told apart: {error}"
        ) from None


def _rank(entry: Entry) -> tuple[float, int, str]:
    return best_first(entry, "test"), KINDS.index(entry.kind), entry.label


def _validation_mean(entry: Entry) -> float | None:
    try:
        return entry.scores.mean("validation").value
    except PairingError:
        return None


def _numbers_first(coefficient: str) -> tuple[tuple[float, str], ...]:
    """Sort `lambda=0.5` before `lambda=1.0` before `lambda=10.0`."""
    parts = re.split(r"(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)", coefficient)
    return tuple(
        (float(part), "") if index % 2 else (0.0, part) for index, part in enumerate(parts)
    )


def _verdict(comparison: Comparison | None) -> str:
    if comparison is None:
        return "–"
    return f"{comparison.verdict} ({100 * comparison.difference:+.1f})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _notes(table: Sequence[Row]) -> str:
    first = table[0]
    sizes = ", ".join(f"{name} {score.n}" for name, score in first.benchmarks.items())
    levels = {c.confidence for row in table for c in (row.vs_base, row.vs_best_expert) if c}
    level = f"{100 * max(levels):g} %" if levels else "no"
    return (
        f"Percent of test items (95 % interval; items: {sizes}). Coefficients were chosen on "
        f"validation items, which are never test items. A verdict needs both a paired bootstrap "
        f"interval clear of zero and McNemar's test at {level} confidence; in brackets the "
        "difference of means in points."
    )
