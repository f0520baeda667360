"""Who wins a search: the best trial, or the centre of all that are about as good.

The best of many trials is best partly by luck: it answers right just those items that were asked.
The centre is a mean of the tried points. Each counts as it might be the best in truth:
exp(−z² / 2), where z is how far its objective is below that of the best trial, in standard errors
of their difference on the same items. A trial that answers as the best one does counts fully, one
two standard errors below it an eighth. Luck that differs from trial to trial averages out, as in
averages of weights along a training run (Izmailov et al. 2018, arXiv 1803.05407) and, by its aim,
in the one-standard-error rule (Breiman et al. 1984).

The centre of two hills is a valley. So the centre is scored too, as one candidate more, and wins
only where it is not below the best trial by more than WITHIN standard errors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval_ops.search.settings import Measure as Measure
from eval_ops.search.spaces import Dimension, Point, SearchSpace, Value

Values = NDArray[np.float64]
WITHIN = 1.0
"""Standard errors by which the centre may be below the best trial, whose luck it has not."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What trials answered on validation items.

    `shares` [trials, units] are what each unit, an item or all items of a passage, adds to a
    trial's objective: the sum of a row is its objective. `strata` [units] number the benchmarks of
    the units.
    """

    shares: Values
    strata: NDArray[np.int64]

    def objectives(self) -> Values:
        """Return the objective of each trial, shape [trials]."""
        return self.shares.sum(axis=1)

    def below(self, best: int) -> tuple[Values, Values]:
        """Return how far each trial is below one of them, and the standard error of that.

        Both have the shape [trials]. Units are drawn within each benchmark; one with a single unit
        says nothing of its error, and adds none.
        """
        differences = self.shares[best] - self.shares
        variance = np.zeros(len(self.shares))
        for stratum in np.unique(self.strata):
            part = differences[:, self.strata == stratum]
            count = part.shape[1]
            if count > 1:
                variance += count * part.var(axis=1, ddof=1)
        return differences.sum(axis=1), np.sqrt(variance)


def centre_weights(answers: Answers) -> Values:
    """Return how much each trial counts in the centre, shape [trials]; the best one counts 1.

    A trial below the best one on every unit alike, so without any error, counts nothing.
    """
    best = int(answers.objectives().argmax())
    gap, error = answers.below(best)
    gap = np.maximum(gap, 0.0)
    surprise = np.where(gap > 0, gap / np.maximum(error, 1e-12), 0.0)
    return np.exp(-(np.minimum(surprise, 40.0) ** 2) / 2)


def centre(space: SearchSpace, points: Sequence[Point], answers: Answers) -> Point:
    """Return the centre of the tried points, in the order of the answers' rows.

    Numbers are averaged, by ratio where they are searched by ratio, and go to the nearest step
    where there are steps. Of choices the one that most trials count for is taken.
    """
    weights = centre_weights(answers)
    return {
        d.name: _middle(d, [point[d.name] for point in points], weights) for d in space.dimensions
    }


def is_as_good(answers: Answers, centre_row: int) -> bool:
    """Tell whether the centre, a row of the answers, wins over the best of the other rows."""
    totals = answers.objectives()
    others = np.where(np.arange(len(totals)) == centre_row, -np.inf, totals)
    gap, error = answers.below(int(others.argmax()))
    return bool(gap[centre_row] <= WITHIN * error[centre_row] + 1e-12)


def _middle(dimension: Dimension, values: Sequence[Value], weights: Values) -> Value:
    if dimension.values:
        counted = {
            value: sum(w for each, w in zip(values, weights, strict=True) if each == value)
            for value in dimension.values
        }
        return max(counted, key=lambda value: counted[value])
    shares = np.array([dimension.share_of(value) for value in values])
    share = float(shares @ weights / weights.sum())
    if not dimension.steps:
        return dimension.at(share)
    wanted = dimension.low + share * (dimension.high - dimension.low)
    return min(dimension.steps, key=lambda step: abs(float(step) - wanted))
