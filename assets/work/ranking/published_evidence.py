"""What follows from all answers of a suite, published beside the leaderboard for people.

`ronghe leaderboard` reads it, so that nothing is worked out anew and no answer is read. It is told
of the leaderboard that it was worked out for. Knows no Dagster.
"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

from assets.work.merging.studying import finite

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assets.work.ranking.store_matrix import BoardEvidence
    from resources.store import ArtifactStore

EVIDENCE, KIND, FILE = "leaderboard_evidence", "report", "evidence.json"
MOST_FRONTS = 3
"""Pairs of benchmarks whose trade-off is told, and drawn."""


def findings_of(found: "BoardEvidence") -> dict[str, Any]:
    """Return evidence as JSON has it; shares are shares of 1, lengths tokens.

    `luck` says how much the best flatters itself, `retention` and `interference` have a row for
    each merge (and expert), `fronts` the models that nothing beats in two goals.
    """
    luck = found.luck
    findings = {
        "luck": None if luck is None else {**asdict(luck), "told": luck.to_text()},
        "advice": found.routing.advice,
        "retention": [asdict(each) for each in found.retention],
        "interference": [asdict(each) for each in found.interference],
        "fronts": [*_fronts(found), *_front_of_lengths(found)],
    }
    return finite(findings)


def _fronts(found: "BoardEvidence") -> list[dict[str, Any]]:
    """The trade-offs between pairs of benchmarks."""
    test, means = found.test, found.test.benchmark_means()
    pairs = islice(combinations(range(len(test.benchmarks)), 2), MOST_FRONTS)
    return [
        _front([test.benchmarks[each] for each in pair], test.models, means[:, list(pair)])
        for pair in pairs
    ]


def _front_of_lengths(found: "BoardEvidence") -> list[dict[str, Any]]:
    """The trade-off of the mean against the answers' length; none where nothing is written."""
    import numpy as np

    from eval_ops.scores.answers import mean_lengths

    lengths = mean_lengths(found.test)
    if np.isfinite(lengths).sum() < 2:
        return []
    points = np.stack([lengths, found.test.means()], axis=1)
    return [_front(["tokens of an answer", "mean"], found.test.models, points, smaller=(0,))]


def _front(
    goals: list[str],
    models: tuple[str, ...],
    points: "NDArray[np.float64]",
    smaller: tuple[int, ...] = (),
) -> dict[str, Any]:
    """The models on a front, best in the first goal first, each with its values."""
    from eval_ops.scores.answers import front

    on_front = [
        {"model": models[row], "values": [float(value) for value in points[row]]}
        for row in front(points, smaller).nonzero()[0].tolist()
    ]
    on_front.sort(key=lambda each: each["values"][0], reverse=0 not in smaller)
    units = ["tokens" if goal in smaller else "share" for goal in range(len(goals))]
    return {"goals": goals, "units": units, "front": on_front}


def publish_evidence(
    store: "ArtifactStore",
    board: str,
    findings: Mapping[str, Mapping[str, Any]],
    run: str | None = None,
) -> None:
    """Publish findings by suite, and point to them; `board` is the leaderboard's digest."""
    with store.attempt(KIND) as attempt:
        attempt.write_json(FILE, {"leaderboard": board, "suites": dict(findings)})
        artifact = attempt.publish()
    store.point(EVIDENCE, None, KIND, artifact.digest, run=run)


def read_evidence(store: "ArtifactStore", board: str) -> dict[str, Any]:
    """Return the findings of each suite that belong to a leaderboard; empty where there are none.

    Raises DamagedArtifactError where they cannot be read.
    """
    from resources.errors import MissingArtifactError

    try:
        artifact = store.resolve(EVIDENCE)
    except MissingArtifactError:
        return {}
    if artifact is None:
        return {}
    content = artifact.read_json(FILE)
    return content["suites"] if content["leaderboard"] == board else {}
