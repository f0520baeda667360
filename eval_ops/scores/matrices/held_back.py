"""What a reduced set costs: decisions by it and by all items, on candidates that took no part.

Candidates are left out in turns, with whatever shares their expert set: neither the choice of items
nor the estimates know them. Nothing that `reduced` says of its error is assumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from eval_ops.scores.comparison import Verdict
from eval_ops.scores.intervals import wilson
from eval_ops.scores.matrices.item_response import fit_responses
from eval_ops.scores.matrices.matrix import ScoreMatrix, Values
from eval_ops.scores.matrices.reduced import (
    AnyEstimator,
    Choice,
    ReducedSet,
    ResponseEstimator,
    choose_items,
    fit,
)

FOLDS = 5
COUNTED: tuple[str, ...] = ("agreed", "promoted", "false", "missed", "reversed")


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
            estimator = _fitted(known, reduced, choice)
            spread = _spread(known, rival, reduced, choice, seed)
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


def _stderrs(
    known: ScoreMatrix, left_out: ScoreMatrix, rival: str, estimator: AnyEstimator
) -> Values:
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
    if len(reduced.items) == len(known.items):  # these are the standard errors themselves
        return found
    base = known.values[known.model(rival)]
    least = [_stderr(known, row - base) for row in known.values]
    return np.maximum(found, min((each for each in least if each > 0), default=0.0))


def _verdict(difference: float, stderr: float, confidence: float) -> Verdict:
    half = NormalDist().inv_cdf(0.5 + confidence / 2) * stderr
    if difference - half > 0:
        return "better"
    return "worse" if difference + half < 0 else "undecided"


def _fitted(known: ScoreMatrix, reduced: ReducedSet, choice: Choice) -> AnyEstimator:
    """What estimates means: regression, or item response models where they chose the items."""
    if choice == "item response":
        return ResponseEstimator(reduced, fit_responses(known))
    return fit(known, reduced)


def _spread(
    known: ScoreMatrix, rival: str, reduced: ReducedSet, choice: Choice, seed: int
) -> float:
    """The error to expect, from the known models alone: each estimated by the others."""
    errors: list[float] = []
    for fold in _folds([name for name in known.models if name != rival], None, seed):
        inside = known.of_models([name for name in known.models if name not in fold])
        left_out = known.of_models(fold)
        errors += (_fitted(inside, reduced, choice).means(left_out) - left_out.means()).tolist()
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
