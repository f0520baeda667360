"""What the trials of a search answered to the items that choose. Knows no Dagster."""

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from eval_ops.search import MEAN, winners

if TYPE_CHECKING:
    from eval_ops.scores import Sample, SuiteScores
    from eval_ops.search.winners import Measure

CHOOSING = "validation"
"""The items that choose; test items report."""
MOST_KEPT = 256
"""Trials whose answers are kept, those with the highest objectives; the others count next to
nothing in a centre. 10,000 items are some 20 MB."""


class TrialAnswers:
    """Keeps what each trial's units, items or passages, add to its objective.

    By `probability` an item of choices counts the probability of its right answer among them, and
    any other item its value. The first trial says which benchmarks are asked by choices: those
    whose every answer is the most likely one. By `score` every item counts its value.
    """

    def __init__(self, objectives: Sequence[str], measure: "Measure" = "score") -> None:
        self._objectives = tuple(objectives)
        self._smooth: frozenset[str] | None = None if measure == "probability" else frozenset()
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
        for name in self._objectives:
            scores.mean(CHOOSING) if name == MEAN else scores.score(name, CHOOSING)
        if self._smooth is None:
            self._smooth = frozenset(filter(partial(_by_choices, scores), scores.benchmarks))
        weights = self._weights(scores)
        values = {name: self._values(scores, name) for name in weights}
        shares: list[float] = []
        strata: list[int] = []
        for stratum, (benchmark, weight) in enumerate(weights.items()):
            answers, passages = values[benchmark], scores.groups(benchmark, CHOOSING)
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
        means = {
            name: math.fsum(each.values()) / len(each) for name, each in values.items() if each
        }
        return tuple(
            sum(means.values()) / len(means) if name == MEAN else means[name]
            for name in self._objectives
        )

    def _values(self, scores: "SuiteScores", benchmark: str) -> dict[str, float]:
        """What each validation item of a benchmark counts."""
        if benchmark not in (self._smooth or ()):
            return scores.values(benchmark, CHOOSING)
        return {
            sample.item: _of_the_right_answer(sample)
            for sample in scores.samples
            if sample.benchmark == benchmark and sample.split == CHOOSING
        }

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


def _by_choices(scores: "SuiteScores", benchmark: str) -> bool:
    """Whether every answer to a benchmark is the most likely of several choices, one of them right.

    Where a metric divides by length, or several answers are right, it is not.
    """
    own = [s for s in scores.samples if s.benchmark == benchmark and s.split == CHOOSING]
    return bool(own) and all(
        each.answer is not None
        and each.choice is not None
        and len(each.loglikelihoods) > 1
        and each.loglikelihoods[each.choice] == max(each.loglikelihoods)
        and each.value == float(each.choice == each.answer)
        for each in own
    )


def _of_the_right_answer(sample: "Sample") -> float:
    """The probability of an item's right answer among its choices."""
    assert sample.answer is not None
    most = max(sample.loglikelihoods)
    weights = [math.exp(each - most) for each in sample.loglikelihoods]
    return weights[sample.answer] / math.fsum(weights)
