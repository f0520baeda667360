"""What follows from all answers of a suite, beside the leaderboard: tables and pictures."""

from collections.abc import Iterator
from functools import partial
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np

from assets.frame.display import drawn, table
from assets.work.ranking.collecting import Contest
from assets.work.ranking.published_evidence import MOST_FRONTS, findings_of, publish_evidence
from assets.work.ranking.ranking import LEADERBOARD, Leaderboard
from assets.work.ranking.store_matrix import BoardEvidence, evidence_of

if TYPE_CHECKING:
    from eval_ops.scores.answers import RoutingTable
    from resources.store import ArtifactStore


def evidence(
    log: dg.DagsterLogManager,
    store: "ArtifactStore",
    contest: Contest,
    board: Leaderboard,
    run: str | None = None,
) -> dict[str, Any]:
    """Show what routing would buy, what merges keep and break, and what they trade.

    It is published too, for `ronghe leaderboard`. It never stops a ranking: what cannot be worked
    out is said in its place.
    """
    shown: dict[str, Any] = {}
    findings: dict[str, dict[str, Any]] = {}
    for suite, rows in board.tables.items():
        if not rows:
            continue
        try:
            found = evidence_of(store, contest, suite)
            findings[suite] = findings_of(found)
        except Exception as error:  # numbers beside the table; the table is what counts
            shown[f"{suite}: merge or route"] = f"not known ({type(error).__name__}: {error})"
            continue
        if found.luck is not None:
            shown[f"{suite}: the luck of the best"] = found.luck.to_text()
        shown[f"{suite}: merge or route"] = found.routing.advice
        shown[f"{suite}: what routing would buy"] = routing_rows(found.routing)
        shown.update(_kept(log, suite, found))
        for name, picture in _fronts(suite, found):
            shown[name] = drawn(log, LEADERBOARD, picture)
    publish_evidence(store, board.artifact.digest, findings, run)
    return shown


def routing_rows(found: "RoutingTable") -> dg.TableMetadataValue:
    """Show a routing table; numbers are points of test items."""
    return table(
        [
            {
                "way": row.name,
                "test mean": round(100 * row.value, 2),
                "low": round(100 * row.low, 2),
                "high": round(100 * row.high, 2),
                "over best single": round(100 * row.difference, 2),
                "verdict": row.verdict,
                "models": row.models,
                "calls": round(row.calls, 2),
                "detail": row.detail,
            }
            for row in found.rows
        ]
    )


def _kept(log: dg.DagsterLogManager, suite: str, found: BoardEvidence) -> dict[str, Any]:
    """Retention as a table and a picture, and what merges break."""
    if not found.retention:
        return {}
    from eval_ops.plots import retention_plot

    rows = [
        {
            "merge": each.merge,
            "expert": each.expert,
            "gain of the expert": round(100 * each.gain, 1),
            "kept %": _percent(each.share),
            "low": _percent(each.low),
            "high": _percent(each.high),
            "learned items": each.learned,
            "lost items": each.lost,
        }
        for each in found.retention
    ]
    broken = [
        {
            "merge": each.merge,
            "all had right": each.sure,
            "broken": each.broken,
            "broken %, low": round(100 * each.low, 1),
            "broken %, high": round(100 * each.high, 1),
            "new": each.new,
        }
        for each in found.interference
    ]
    return {
        f"{suite}: retention": table(rows),
        f"{suite}: retention, drawn": drawn(
            log, LEADERBOARD, partial(retention_plot, found.retention)
        ),
        **({f"{suite}: interference": table(broken)} if broken else {}),
    }


def _fronts(suite: str, found: BoardEvidence) -> Iterator[tuple[str, Any]]:
    """Trade-offs between benchmarks, and between the mean and the answers' length."""
    from eval_ops.plots import front_plot
    from eval_ops.scores.answers import mean_lengths

    test, means = found.test, found.test.benchmark_means()
    pairs = combinations(range(len(test.benchmarks)), 2)
    for first, second in islice(pairs, MOST_FRONTS):
        names = test.benchmarks[first], test.benchmarks[second]
        points = [(row[first], row[second]) for row in means.tolist()]
        title = f"{suite}: {names[0]} against {names[1]}"
        axes = f"{names[0]}, percent", f"{names[1]}, percent"
        yield f"trade-off of {title}", partial(front_plot, title, axes, test.models, points)
    lengths = mean_lengths(test)
    if np.isfinite(lengths).sum() > 1:
        points = list(zip(lengths.tolist(), test.means().tolist(), strict=True))
        title, axes = f"{suite}: length of answers", ("mean tokens of an answer", "mean, percent")
        draw = partial(front_plot, title, axes, test.models, points, smaller_is_better=True)
        yield f"trade-off of {title}", draw


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)
