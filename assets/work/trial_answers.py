"""What the trials of a search answered to the items that choose. Knows no Dagster."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from eval_ops.search import MEAN, winners

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores

CHOOSING = "validation"
"""The items that choose; test items report."""
MOST_KEPT = 256
"""Trials whose answers are kept, those with the highest objectives; the others count next to
nothing in a centre. 10,000 items are some 20 MB."""


class TrialAnswers:
    """Keeps what each trial's units, items or passages, add to its objective."""

    def __init__(self, objectives: Sequence[str]) -> None:
        self._objectives = tuple(objectives)
        self._shares: dict[int, list[float]] = {}
        self._strata: list[int] = []

    @property
    def numbers(self) -> list[int]:
        """The numbers of the trials whose answers are here, in the order of the rows."""
        return list(self._shares)

    def add(self, number: int, scores: "SuiteScores") -> tuple[float, ...]:
        """Take the answers of a trial; return its objectives.

        Raises PairingError where the suite has no validation items, or no such benchmark.
        """
        values = tuple(
            scores.mean(CHOOSING).value if name == MEAN else scores.score(name, CHOOSING).value
            for name in self._objectives
        )
        shares: list[float] = []
        strata: list[int] = []
        for stratum, (benchmark, weight) in enumerate(self._weights(scores).items()):
            answers, passages = (
                scores.values(benchmark, CHOOSING),
                scores.groups(benchmark, CHOOSING),
            )
            units: dict[str, float] = {}
            for item in sorted(answers):
                unit = passages.get(item) or f"\0{item}"
                units[unit] = units.get(unit, 0.0) + weight * answers[item] / len(answers)
            shares += units.values()
            strata += [stratum] * len(units)
        scores.forget_samples()
        self._shares[number], self._strata = shares, strata
        if len(self._shares) > MOST_KEPT:
            del self._shares[min(self._shares, key=lambda each: (sum(self._shares[each]), -each))]
        return values

    def answers(self) -> winners.Answers:
        """Return the answers of the trials that are here, a row each."""
        import numpy as np

        rows = np.array(list(self._shares.values()), dtype=np.float64)
        return winners.Answers(rows, np.array(self._strata, dtype=np.int64))

    def _weights(self, scores: "SuiteScores") -> dict[str, float]:
        """What a benchmark counts in the mean of the objectives, of those that count at all."""
        weights = dict.fromkeys(scores.benchmarks, 0.0)
        for name in self._objectives:
            for benchmark in scores.benchmarks if name == MEAN else (name,):
                parts = len(scores.benchmarks) if name == MEAN else 1
                weights[benchmark] += 1 / parts / len(self._objectives)
        return {benchmark: weight for benchmark, weight in weights.items() if weight}
