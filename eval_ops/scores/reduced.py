"""Fewer items at an equal decision: items chosen from the store's own score matrix.

Within each benchmark items are sorted by difficulty (the share of models that are wrong) and cut
into strata of equal size; of each stratum the item that tells models apart best (its correlation
with the rest of the benchmark) is asked for all of them. A model's whole mean is then estimated
from its answers to these by ridge regression on the models that are known, as tinyBenchmarks do
with item response theory (Maia Polo et al. 2024, arXiv 2402.14992).

What the estimate costs is never assumed: it is measured on candidates that took no part, neither in
the choice of items nor in the regression (`held_back`), and goes into every interval.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import PairingError
from eval_ops.scores.comparison import Verdict
from eval_ops.scores.intervals import wilson
from eval_ops.scores.matrix import Indices, ItemKey, ScoreMatrix, Values

LEAST_MODELS = 6
"""Known models below which nothing can be said of how items tell models apart."""
RIDGE = 1.0
FOLDS = 5
COUNTED: tuple[str, ...] = ("agreed", "promoted", "false", "missed", "reversed")
Choice = Literal["stratified", "random"]


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

    `random` is the choice to compare with. Raises PairingError for fewer than 6 models, or a size
    below the number of benchmarks.
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
    for benchmark, count in zip(names, counts, strict=True):
        places = matrix.where(benchmark)
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


@dataclass(frozen=True)
class HeldBack:
    """What a reduced set of one size costs, measured on candidates that took no part.

    `items` is the mean size over folds, `error` the root mean square of estimated − whole
    differences to the rival. Of `decisions` (candidates against the rival) `agreed` are the same as
    with all items; `promoted` are those that all items promote. `false` were promoted by the
    reduced set alone, `missed` by all items alone, `reversed` better by one and worse by the other.
    """

    size: int
    items: float
    error: float
    decisions: int
    agreed: int
    promoted: int
    false: int
    missed: int
    reversed: int

    @property
    def agreement(self) -> float:
        """The share of decisions that are the same."""
        return self.agreed / self.decisions

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return Wilson's interval of the agreement."""
        return wilson(self.agreement, self.decisions, confidence)


def held_back(
    matrix: ScoreMatrix,
    rival: str,
    sizes: Sequence[int],
    choice: Choice = "stratified",
    groups: Mapping[str, str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[HeldBack]:
    """Measure what reduced sets cost: candidates are left out in turns, with all of their group.

    Each model but the `rival` is a candidate, once. `groups` maps models to what is left out with
    them (their expert set or recipe), by default nothing. The decision by all items and the one by
    the reduced set are both of the difference to the rival, as its interval says; the reduced one's
    is wider by the error that was found within the known models, and its standard error is
    estimated too.
    """
    others = [name for name in matrix.models if name != rival]
    whole = _whole_decisions(matrix, rival, confidence)
    found: list[HeldBack] = []
    for size in sizes:
        errors: list[float] = []
        counts: dict[str, int] = dict.fromkeys(COUNTED, 0)
        used: list[int] = []
        for fold in _folds(others, groups, seed):
            known = matrix.of_models([name for name in matrix.models if name not in fold])
            reduced = choose_items(known, size, choice, seed)
            used.append(len(reduced.items))
            estimator = fit(known, reduced)
            spread = _spread(known, rival, reduced, seed)
            left_out = matrix.of_models([rival, *fold])
            estimated = estimator.means(left_out)
            unsure = _stderrs(known, left_out, rival, estimator)
            exact = left_out.means()
            for row, name in enumerate(fold, start=1):
                difference = float(estimated[row] - exact[0])
                errors.append(difference - float(exact[row] - exact[0]))
                stderr = float(np.hypot(unsure[row], spread))
                verdict = _verdict(difference, stderr, confidence)
                _count(counts, verdict, whole[name][0])
        error = float(np.sqrt(np.mean(np.square(errors))))
        found.append(HeldBack(size, float(np.mean(used)), error, len(others), **counts))
    return found


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


def _whole_decisions(
    matrix: ScoreMatrix, rival: str, confidence: float
) -> dict[str, tuple[Verdict, float]]:
    """The verdict of each model against the rival by all items, and its standard error."""
    base, weights = matrix.values[matrix.model(rival)], matrix.weights()
    found: dict[str, tuple[Verdict, float]] = {}
    for row, name in enumerate(matrix.models):
        difference = matrix.values[row] - base
        stderr = _stderr(matrix, difference)
        found[name] = _verdict(float(difference @ weights), stderr, confidence), stderr
    return found


def _stderr(matrix: ScoreMatrix, difference: Values) -> float:
    """The standard error of the mean over benchmarks of item differences."""
    variance = 0.0
    for benchmark in matrix.benchmarks:
        part = difference[matrix.where(benchmark)]
        variance += float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25
    return float(np.sqrt(variance)) / len(matrix.benchmarks)


def _stderrs(known: ScoreMatrix, left_out: ScoreMatrix, rival: str, estimator: Estimator) -> Values:
    """The standard errors that all items would give models' differences to the rival, estimated.

    Squared differences are estimated from those on the reduced set, as means are; none is taken
    for smaller than the smallest that is known.
    """
    reduced = estimator.reduced

    def squares(matrix: ScoreMatrix) -> ScoreMatrix:
        base = matrix.values[matrix.model(rival)]
        return replace(matrix, values=np.square(matrix.values - base))

    squared = fit(squares(known), reduced).benchmark_means(squares(left_out))
    base = left_out.benchmark_means()[left_out.model(rival)]
    variance = squared - np.square(estimator.benchmark_means(left_out) - base)
    counts = np.array([len(known.where(name)) for name in known.benchmarks])
    of_mean = np.where(counts > 1, np.maximum(variance, 0) / np.maximum(counts - 1, 1), 0.25)
    found = np.sqrt(of_mean.sum(axis=1)) / len(counts)
    base = known.values[known.model(rival)]
    least = [_stderr(known, row - base) for row in known.values]
    return np.maximum(found, min((each for each in least if each > 0), default=0.0))


def _verdict(difference: float, stderr: float, confidence: float) -> Verdict:
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * stderr
    if difference - half > 0:
        return "better"
    return "worse" if difference + half < 0 else "undecided"


def _spread(known: ScoreMatrix, rival: str, reduced: ReducedSet, seed: int) -> float:
    """The error to expect, from the known models alone: each estimated by the others."""
    errors: list[float] = []
    for fold in _folds([name for name in known.models if name != rival], None, seed):
        inside = known.of_models([name for name in known.models if name not in fold])
        left_out = known.of_models(fold)
        errors += (fit(inside, reduced).means(left_out) - left_out.means()).tolist()
    return float(np.sqrt(np.mean(np.square(errors))))


def _folds(
    names: Sequence[str], groups: Mapping[str, str] | None, seed: int
) -> Iterator[list[str]]:
    """Lists of names that are left out together; all of a group are in one."""
    of = {name: (groups or {}).get(name, name) for name in names}
    order = np.random.default_rng(seed).permutation(sorted(set(of.values())))
    for part in np.array_split(order, min(FOLDS, len(order))):
        inside = set(part.tolist())
        yield [name for name in names if of[name] in inside]


def _count(counts: dict[str, int], reduced: Verdict, whole: Verdict) -> None:
    counts["agreed"] += (reduced == "better") == (whole == "better")
    counts["promoted"] += whole == "better"
    counts["false"] += reduced == "better" and whole != "better"
    counts["missed"] += whole == "better" and reduced != "better"
    counts["reversed"] += {reduced, whole} == {"better", "worse"}


def _correlations(values: Values, rest: Values) -> NDArray[np.float64]:
    """The correlation of each column of `values` with the same column of `rest`."""
    a, b = values - values.mean(axis=0), rest - rest.mean(axis=0)
    below = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.where(below > 1e-12, (a * b).sum(axis=0) / np.where(below > 1e-12, below, 1.0), 0.0)
