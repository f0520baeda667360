"""Rows of the leaderboard whose recipe, suite or model is broken now. Knows no Dagster.

What is broken is not removed. Its rows are those of the leaderboard before, ranked anew where that
can be, and marked; so a typo in a file takes nobody off the leaderboard, and says what is old.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resources.store import Artifact

MARK = "stale"
"""Key of a row, in the leaderboard's JSON, that says why the row is an old one."""
NOTES = "\nOld rows, of the last sound look: "
"""Begins what is said of them below a table."""


@dataclass(frozen=True)
class Broken:
    """What of a catalog is broken, by name, with what is wrong: recipes, suites and models."""

    recipes: Mapping[str, str] = field(default_factory=dict[str, str])
    suites: Mapping[str, str] = field(default_factory=dict[str, str])
    models: Mapping[str, str] = field(default_factory=dict[str, str])

    def __bool__(self) -> bool:
        return bool(self.recipes or self.suites or self.models)

    def reason(self, row: Mapping[str, Any]) -> str | None:
        """Say why a row is an old one; None where it is not."""
        if row["recipe"] in self.recipes:
            return self.recipes[row["recipe"]]
        for name in row["experts"] or (row["label"],):
            if name in self.models:
                return self.models[name]
        return None


@dataclass(frozen=True)
class EarlierBoard:
    """The leaderboard before: its rows and its Markdown, by suite."""

    rows: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[Any]])
    texts: Mapping[str, str] = field(default_factory=dict[str, str])

    def points(self, suite: str, recipe: str) -> Mapping[str, tuple[str, str]]:
        """Return the points of a recipe that had rows: expert set and coefficient by partition."""
        found: dict[str, tuple[str, str]] = {}
        for row in self.rows.get(suite, ()):
            if row["recipe"] == recipe and row["coefficient"] is not None:
                experts = "+".join(sorted(row["experts"]))
                found[f"{row['coefficient']}|{experts}"] = (experts, row["coefficient"])
        return found

    def is_average(self, suite: str, recipe: str) -> bool:
        """Tell whether a recipe's rows were those of the plain average."""
        rows = (row for row in self.rows.get(suite, ()) if row["recipe"] == recipe)
        return any(row["kind"] == "average" for row in rows)

    def suites_of(self, recipes: Mapping[str, str]) -> Iterator[str]:
        """Yield the suites on which any of the recipes has a row."""
        for suite, rows in self.rows.items():
            if any(row["recipe"] in recipes for row in rows):
                yield suite


def read_board(artifact: "Artifact | None") -> EarlierBoard:
    """Read a leaderboard; nothing where there is none or it cannot be read."""
    from resources.errors import DamagedArtifactError

    rows: dict[str, list[dict[str, Any]]] = {}
    texts: dict[str, str] = {}
    try:
        for file in artifact.files if artifact is not None else ():
            suite = file.removesuffix(".json")
            if artifact is not None and suite != file:
                rows[suite] = artifact.read_json(file)
                texts[suite] = artifact.read_bytes(f"{suite}.md").decode()
    except (DamagedArtifactError, KeyError):
        return EarlierBoard()
    return EarlierBoard(rows, texts)


def marked(table: str, broken: Broken) -> str:
    """Return a suite's rows as JSON with a mark on those that are old."""
    rows = json.loads(table)
    for row in rows:
        if (reason := broken.reason(row)) is not None:
            row[MARK] = reason
    return _written(rows)


def all_marked(rows: list[dict[str, Any]], reason: str) -> str:
    """Return rows as they were, each with a mark."""
    return _written([{**row, MARK: reason} for row in rows])


def notes(rows: str) -> str:
    """Return the reasons of the marks in a suite's rows as lines of Markdown, each once."""
    by_reason: dict[str, list[str]] = {}
    for row in json.loads(rows):
        if row.get(MARK):
            by_reason.setdefault(row[MARK], []).append(row["label"])
    return "".join(
        f"{NOTES}{', '.join(labels)}.\n\n    " + reason.replace("\n", "\n    ") + "\n"
        for reason, labels in by_reason.items()
    )


def without_notes(text: str) -> str:
    """Return a table's Markdown without what `notes` said below it."""
    return text.split(NOTES, 1)[0]


def _written(rows: list[dict[str, Any]]) -> str:
    return "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
