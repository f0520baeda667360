"""What a suite can show, from what is known before a run. Knows no Dagster."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from eval_ops.errors import EvalError
from resources.errors import ResourceError

if TYPE_CHECKING:
    from assets.work.ranking.collecting import Contest
    from eval_ops.scores.power import SuitePower
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore

MOST_MODELS = 8
"""Models whose earlier answers tell how often two differ."""


def smallest_differences(store: "ArtifactStore", contest: "Contest") -> dict[str, str]:
    """Return, for each suite, the smallest differences it can show, as a sentence for people.

    From the earlier answers of the contest's models where the store has them, else at the worst,
    from the suite's own items. A suite of which neither is known is left out.
    """
    told: dict[str, str] = {}
    for name, path in contest.suites.items():
        power = _power_of(store, contest, name, path)
        if power is not None:
            told[name] = power.to_text()
    return told


def _power_of(
    store: "ArtifactStore", contest: "Contest", name: str, path: Path
) -> "SuitePower | None":
    from assets.work.suite_files import load_suite

    try:
        suite = load_suite(path)
    except EvalError:
        return None  # its faults are told where they are looked for
    return _from_scores(store, contest, suite) or suite_power_at_worst(suite)


def _from_scores(store: "ArtifactStore", contest: "Contest", suite: "Suite") -> "SuitePower | None":
    """What earlier answers of the models tell; None without two of them."""
    from assets.work.ranking.collecting import collect_entries
    from eval_ops.scores.power import expected_from, suite_power

    try:
        found = collect_entries(store, contest, suite, [])
        scores = [entry.scores for entry in found.entries[:MOST_MODELS]]
        if len(scores) < 2:
            return None
        power = suite_power(suite.name, expected_from(scores))
        for each in scores:
            each.forget_samples()
    except (EvalError, ResourceError):
        return None  # the same faults are told by the leaderboard
    return power


def suite_power_at_worst(suite: "Suite") -> "SuitePower | None":
    """Return what a suite of own items can show at the worst; None where a task's are unknown."""
    from eval_ops.scores.power import Expected, suite_power

    expected: Mapping[str, Expected] = {
        benchmark.name: Expected(n, clusters)
        for benchmark in suite.benchmarks
        for n, clusters in [_test_items(benchmark.items, benchmark.limit)]
        if n
    }
    if not expected or len(expected) < len(suite.benchmarks):
        return None
    return suite_power(suite.name, expected)


def _test_items(items: object, limit: int | None) -> tuple[int, int]:
    """How many test items there are, and in how many groups; no more than `limit`."""
    groups: set[object] = set()
    n = 0
    for item in items if isinstance(items, tuple | list) else ():
        if getattr(item, "split", "test") == "test":
            n += 1
            groups.add(getattr(item, "group", "") or n)
    most = limit or n
    return min(n, most), min(len(groups), most)
