"""The leaderboard as the store has it, and the suites that it speaks of."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assets.site.sections.scores_seen import rounded
from assets.site.view import BoardRow, Cell, SuiteView
from assets.work.ranking.collecting import Contest
from assets.work.ranking.imports import imported_beside
from assets.work.ranking.kept_rows import MARK, read_board
from assets.work.suite_files import load_suite
from eval_ops.errors import EvalError
from resources.errors import DamagedArtifactError, MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore

SIDES = {"vs_base": "base", "vs_best_expert": "best", "vs_average": "average"}
"""A row's comparisons in the leaderboard's JSON, and what the site calls them."""


def load_suites(contest: Contest, problems: dict[str, str]) -> dict[str, "Suite"]:
    """Read the suites that recipes are scored on; what is wrong with others goes to `problems`."""
    loaded: dict[str, Suite] = {}
    for name, path in contest.suites.items():
        try:
            loaded[name] = load_suite(path)
        except EvalError as error:
            problems[f"suite {name}"] = f"{type(error).__name__}: {error}"
    return loaded


def suite_view(suite: "Suite") -> SuiteView:
    """Show a suite: its benchmarks in their order."""
    benchmarks = tuple((each.name, each.title) for each in suite.benchmarks)
    return SuiteView(suite.name, suite.description, benchmarks)


def board_rows(
    store: "ArtifactStore", problems: dict[str, str]
) -> tuple[dict[str, list[Mapping[str, Any]]], tuple[Mapping[str, Any], ...]]:
    """Read the leaderboard's rows by suite, and the scores from elsewhere that stand beside them.

    What is not there or cannot be read is none.
    """
    try:
        board = store.resolve("leaderboard")
        found, beside = read_board(board).rows, imported_beside(board)
    except (DamagedArtifactError, MissingArtifactError) as error:
        problems["leaderboard"] = f"{type(error).__name__}: {error}"
        return {}, ()
    return {suite: list(rows) for suite, rows in found.items()}, tuple(map(_imported, beside))


def _imported(row: Mapping[str, Any]) -> dict[str, Any]:
    """A score from elsewhere with its numbers as a page has them."""
    score, low, high = rounded((row["score"], row["low"], row["high"]))
    return {**row, "score": score, "low": low, "high": high}


def suites_of_rows(rows: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, SuiteView]:
    """Show suites as their rows tell them, for those whose files cannot be read."""
    views: dict[str, SuiteView] = {}
    for name, of_suite in rows.items():
        benchmarks = tuple((each, each) for each in of_suite[0]["benchmarks"]) if of_suite else ()
        views[name] = SuiteView(name, "", benchmarks)
    return views


def board(
    rows: list[Mapping[str, Any]], suite: SuiteView, champions: Mapping[str, str]
) -> tuple[BoardRow, ...]:
    """Show a suite's rows. `champions` are the digests of the recipes' champions."""
    return tuple(_row(each, suite, champions) for each in rows)


def _row(row: Mapping[str, Any], suite: SuiteView, champions: Mapping[str, str]) -> BoardRow:
    digest, recipe = str(row["digest"] or ""), str(row["recipe"] or "")
    mean, validation = row["mean"], row["validation_mean"]
    scores = [row["benchmarks"].get(name) for name, _ in suite.benchmarks]
    value, low, high = rounded((mean["value"], mean["low"], mean["high"]))
    return BoardRow(
        label=str(row["label"]),
        kind=str(row["kind"]),
        recipe=recipe,
        experts=tuple(map(str, row["experts"])),
        coefficient=str(row["coefficient"] or ""),
        digest=digest,
        cells=tuple(_cell(score) for score in scores),
        mean=(value, low, high),
        validation=None if validation is None else round(validation, 6),
        against={
            side: (each["verdict"], *rounded((each["difference"], each["low"], each["high"])))  # type: ignore[misc]
            for key, side in SIDES.items()
            if (each := row.get(key)) is not None
        },
        champion=bool(digest) and champions.get(recipe) == digest,
        stale=str(row.get(MARK) or ""),
    )


def _cell(score: Mapping[str, Any] | None) -> Cell:
    """One benchmark's value; of a benchmark that the row lacks, an interval of everything."""
    if score is None:
        return 0.0, 0.0, 1.0, 0
    value, low, high = rounded((score["value"], score["low"], score["high"]))
    return value, low, high, int(score["n"])
