"""Fewer items at an equal decision: items chosen from the store's own score matrix.

Within each benchmark items are sorted by difficulty (the share of models that are wrong) and cut
into strata of equal size; of each stratum the item that tells models apart best (its correlation
with the rest of the benchmark) is asked for all of them. A model's whole mean is then estimated
from its answers to these by ridge regression on the models that are known, as tinyBenchmarks do
with item response theory (Maia Polo et al. 2024, arXiv 2402.14992).

What the estimate costs is never assumed: it is measured on candidates that took no part, neither in
the choice of items nor in the regression (`held_back`), and goes into every interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.item_response import (
    ItemResponses,
    estimated_means,
    fit_responses,
    most_informative,
)
from eval_ops.scores.matrices.matrix import Indices, ItemKey, ScoreMatrix, Values

LEAST_MODELS = 6
"""Known models below which nothing can be said of how items tell models apart."""
RIDGE = 1.0
Choice = Literal["stratified", "random", "item response"]


@dataclass(frozen=True)
class ItemStatistics:
    """What known models say of items: `difficulty` and `discrimination`, shape [items] each.

    Difficulty is the share of wrong answers (1 − the mean value). Discrimination is the correlation
    of an item with the mean of the others of its benchmark, 0 where all models answer alike.
    """

    difficulty: Values
    discrimination: Values


def item_statistics(matrix: ScoreMatrix) -> ItemStatistics:
    """Work out both from the models of a matrix."""
    discrimination = np.zeros(len(matrix.items))
    for benchmark in matrix.benchmarks:
        places = matrix.where(benchmark)
        values = matrix.values[:, places]
        rest = values.sum(axis=1, keepdims=True) - values
        discrimination[places] = _correlations(values, rest)
    return ItemStatistics(1 - matrix.values.mean(axis=0), discrimination)


@dataclass(frozen=True)
class ReducedSet:
    """Some items of a suite, which stand for all: `items` by key, for one suite alone."""

    suite: str
    suite_digest: str
    items: tuple[ItemKey, ...]
    of: int


def choose_items(
    matrix: ScoreMatrix, size: int, choice: Choice = "stratified", seed: int = 0
) -> ReducedSet:
    """Choose about `size` items of a matrix, each benchmark's share of them, one at least each.

    `random` and `item response` (item_response) are choices to compare with. Raises PairingError
    for fewer than 6 models, or a size below the number of benchmarks.
    """
    names = matrix.benchmarks
    if len(matrix.models) < LEAST_MODELS or size < len(names):
        raise PairingError(
            f"suite '{matrix.suite}': {size} items of {len(names)} benchmarks from the scores of "
            f"{len(matrix.models)} models; it takes {LEAST_MODELS} models and an item a benchmark"
        )
    found = item_statistics(matrix)
    draw = np.random.default_rng(seed)
    chosen: list[int] = []
    counts = _shares_of(size, [len(matrix.where(benchmark)) for benchmark in names])
    responses = fit_responses(matrix) if choice == "item response" else None
    for column, (benchmark, count) in enumerate(zip(names, counts, strict=True)):
        places = matrix.where(benchmark)
        if responses is not None:
            chosen += most_informative(responses, places, column, count)
            continue
        if choice == "random":
            chosen += draw.choice(places, count, replace=False).tolist()
            continue
        order = places[np.lexsort((places, found.difficulty[places]))]
        for stratum in np.array_split(order, count):
            best = np.argmax(np.round(found.discrimination[stratum], 12))
            chosen.append(int(stratum[best]))
    keys = tuple(matrix.items[n] for n in sorted(chosen))
    return ReducedSet(matrix.suite, matrix.suite_digest, keys, len(matrix.items))


@dataclass(frozen=True, eq=False)
class Estimator:
    """Estimates means over all items from answers to a reduced set.

    `weights` [reduced items + 1, benchmarks] make benchmark means of answers; the last is constant.
    """

    reduced: ReducedSet
    benchmarks: tuple[str, ...]
    weights: Values

    def means(self, matrix: ScoreMatrix) -> Values:
        """Return each model's estimated mean over benchmarks, shape [models].

        Raises PairingError where the matrix is of another suite or lacks an item.
        """
        return self.benchmark_means(matrix).mean(axis=1)

    def benchmark_means(self, matrix: ScoreMatrix) -> Values:
        """Return estimated means [models, benchmarks], each between 0 and 1."""
        answers = matrix.values[:, places_of(matrix, self.reduced)]
        known = np.hstack([answers, np.ones((len(answers), 1))])
        return np.clip(known @ self.weights, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class ResponseEstimator:
    """Estimates means as `Estimator` does, from item response models (item_response)."""

    reduced: ReducedSet
    responses: ItemResponses

    def means(self, matrix: ScoreMatrix) -> Values:
        """Return each model's estimated mean over benchmarks, shape [models]."""
        return self.benchmark_means(matrix).mean(axis=1)

    def benchmark_means(self, matrix: ScoreMatrix) -> Values:
        """Return estimated means [models, benchmarks]."""
        return estimated_means(self.responses, matrix, places_of(matrix, self.reduced))


AnyEstimator = Estimator | ResponseEstimator


def fit(matrix: ScoreMatrix, reduced: ReducedSet) -> Estimator:
    """Fit the estimator on known models: ridge regression towards the reduced benchmark's mean."""
    places = places_of(matrix, reduced)
    names, means = matrix.benchmarks, matrix.benchmark_means()
    weights = np.zeros((len(places) + 1, len(names)))
    for column, benchmark in enumerate(names):
        inside = [n for n, key in enumerate(reduced.items) if key.benchmark == benchmark]
        answers = matrix.values[:, places[inside]]
        prior = np.full(len(inside), 1 / len(inside))
        left = means[:, column] - answers @ prior
        centred = answers - answers.mean(axis=0)
        ridge = RIDGE * np.eye(len(inside))
        rest = np.asarray(left - left.mean(), dtype=np.float64)
        solve: Any = np.linalg.solve
        solved: Any = solve(centred.T @ centred + ridge, centred.T @ rest)
        learned = np.asarray(solved, dtype=np.float64)
        weights[inside, column] = prior + learned
        weights[-1, column] = float(left.mean() - answers.mean(axis=0) @ learned)
    return Estimator(reduced, names, weights)


def places_of(matrix: ScoreMatrix, reduced: ReducedSet) -> Indices:
    """Return where a reduced set's items stand in a matrix; PairingError where one does not."""
    if matrix.suite_digest != reduced.suite_digest:
        raise PairingError(
            f"the reduced set is of suite '{reduced.suite}' ({reduced.suite_digest[:12]}), the"
            f" scores are of '{matrix.suite}' ({matrix.suite_digest[:12]}); choose items again"
        )
    at = {key: place for place, key in enumerate(matrix.items)}
    lacking = [key.item for key in reduced.items if key not in at]
    if lacking:
        raise PairingError(f"suite '{matrix.suite}': item '{lacking[0]}' was not scored")
    return np.array([at[key] for key in reduced.items], dtype=np.int64)


def _shares_of(size: int, there: Sequence[int]) -> list[int]:
    """How many items each benchmark gives: equal shares, and what a small one lacks from others."""
    counts, left = [0] * len(there), size
    for done, place in enumerate(sorted(range(len(there)), key=lambda n: there[n])):
        counts[place] = min(there[place], max(1, round(left / (len(there) - done))))
        left -= counts[place]
    return counts


def _correlations(values: Values, rest: Values) -> NDArray[np.float64]:
    """The correlation of each column of `values` with the same column of `rest`."""
    a, b = values - values.mean(axis=0), rest - rest.mean(axis=0)
    below = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.where(below > 1e-12, (a * b).sum(axis=0) / np.where(below > 1e-12, below, 1.0), 0.0)
