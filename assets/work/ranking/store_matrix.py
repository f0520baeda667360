"""The store's own score matrix of a suite, and what is worked out from it. Knows no Dagster."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from assets.work.ranking.collecting import Collected, Contest, collect_entries
from assets.work.suite_files import load_suite
from eval_ops.errors import PairingError
from eval_ops.scores.answers import ItemKey, ScoreMatrix, score_matrix
from eval_ops.scores.leaderboard import Entry, Optimism, best_first, choose, optimism

if TYPE_CHECKING:
    from eval_ops.scores.answers import Interference, Retention, RoutingTable
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore

MOST_MODELS = 24
"""Models of one matrix: bases, experts, and the candidates that are best on validation items. All
their samples are in memory at once."""
MOST_TRIED = 64
"""Candidates that the luck of the best is estimated from, best first."""
MOST_MERGES = 12
"""Merges of which retention and interference are told: those that rank first on validation."""


def store_matrix(
    store: "ArtifactStore", contest: Contest, suite: "Suite", most: int | None = MOST_MODELS
) -> tuple[ScoreMatrix, list[Entry]]:
    """Read the matrix of what is live on a suite, and the entries that are its rows.

    Of each recipe and expert set the chosen coefficient is there, with `most` None every one.
    Raises PairingError where nothing is scored.
    """
    return _matrix_of(_scored(store, contest, suite).entries, most)


def _scored(store: "ArtifactStore", contest: Contest, suite: "Suite") -> Collected:
    found = collect_entries(store, contest, suite)
    if not found.entries:
        raise PairingError(f"nothing is scored on suite '{suite.name}' yet; run `ronghe refresh`")
    return found


def _matrix_of(entries: list[Entry], most: int | None) -> tuple[ScoreMatrix, list[Entry]]:
    if most is not None:
        chosen = choose(entries)
        merged = [entry for entry in chosen if entry.experts]
        merged.sort(key=best_first)
        single = [entry for entry in chosen if not entry.experts][:most]
        entries = [*single, *merged[: max(0, most - len(single))]]
    matrix = score_matrix({entry.label: entry.scores for entry in entries})
    for entry in entries:
        entry.scores.forget_samples()
    return matrix, entries


def _luck_of(entries: Sequence[Entry], left: int) -> Optimism | None:
    """How much the best of all candidates flatters itself; None where there are not two.

    `left` were tried too and left early: they count among the tried, and were never near the best.
    """
    merged = sorted((entry for entry in entries if entry.experts), key=best_first)
    if len(merged) < 2:
        return None
    best = merged[:MOST_TRIED]
    found = optimism([entry.scores for entry in best])
    for entry in best:
        entry.scores.forget_samples()
    return replace(found, candidates=len(merged) + left)


def item_texts(suite: "Suite") -> dict[ItemKey, str]:
    """Return the questions of a suite's own items; those of lm-eval's tasks are not known here."""
    return {
        ItemKey(benchmark.name, item.split, item.id): item.prompt
        for benchmark in suite.benchmarks
        for item in benchmark.items
    }


@dataclass(frozen=True)
class BoardEvidence:
    """What follows from all answers on a suite together; all numbers are of `test` items.

    `retention` has a row for each merge and expert of its set, `interference` one for each merge.
    Both are empty where the catalog has several base models, or none that is scored. `luck` is what
    the best of all candidates owes to being the best of so many, on validation items.
    """

    routing: "RoutingTable"
    test: ScoreMatrix
    retention: tuple["Retention", ...] = ()
    interference: tuple["Interference", ...] = ()
    luck: Optimism | None = None


def evidence_of(store: "ArtifactStore", contest: Contest, suite_name: str) -> BoardEvidence:
    """Work out what routing would buy, and what merges keep and break.

    Raises PairingError where the suite has no validation items, or nothing is scored.
    """
    from eval_ops.scores.answers import interference, retention, routing_table

    suite = load_suite(contest.suites[suite_name])
    collected = _scored(store, contest, suite)
    matrix, entries = _matrix_of(collected.entries, MOST_MODELS)
    luck = _luck_of(collected.entries, len(collected.left))
    test, routing = matrix.split("test"), routing_table(matrix, item_texts(suite))
    bases = [entry.name for entry in entries if entry.kind == "base"]
    if len(contest.bases) != 1 or not bases:
        return BoardEvidence(routing, test, luck=luck)
    merges = [entry for entry in entries if entry.experts][:MOST_MERGES]
    known = {entry.name for entry in entries if entry.kind == "expert"}
    kept = tuple(
        retention(test, merge.label, expert, bases[0])
        for merge in merges
        for expert in merge.experts
        if expert in known
    )
    broken = tuple(
        interference(test, merge.label, merge.experts, bases[0])
        for merge in merges
        if known.issuperset(merge.experts)
    )
    return BoardEvidence(routing, test, kept, broken, luck)


def routing_of(store: "ArtifactStore", contest: Contest, suite_name: str) -> "RoutingTable":
    """Work out what routing between the live models and candidates of a suite would buy.

    Raises PairingError where the suite has no validation items, or nothing is scored.
    """
    return evidence_of(store, contest, suite_name).routing
