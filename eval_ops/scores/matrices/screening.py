"""Screening: candidates are asked a reduced set first, and those that are far behind are left.

The reduced set is chosen from the answers of models that are known (`reduced`), and so is what
estimates a whole mean from it. How far the estimates err is measured on known models that took no
part in either. A candidate is left where its estimate is below that of the best one by more than
both can err, at the confidence asked for over all candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.held_back import held_back
from eval_ops.scores.matrices.matrix import ItemKey, ScoreMatrix
from eval_ops.scores.matrices.reduced import LEAST_MODELS, Estimator, choose_items, fit

LEAST_KNOWN = 2 * LEAST_MODELS
"""Known models below which the error of an estimate cannot be measured: folds leave a fifth out."""


@dataclass(frozen=True, eq=False)
class Screen:
    """A reduced set, what estimates whole means from it, and how far that errs.

    `error` is the root mean square error of a difference between two models, found on `models`
    known ones that took no part.
    """

    estimator: Estimator
    error: float
    models: int

    @property
    def items(self) -> tuple[ItemKey, ...]:
        """What every candidate is asked."""
        return self.estimator.reduced.items

    def estimate(self, answers: Mapping[ItemKey, float]) -> float:
        """Return the estimated mean over benchmarks of a candidate that answered the items."""
        values = np.array([[answers[item] for item in self.items] + [1.0]])
        return float(np.clip(values @ self.estimator.weights, 0.0, 1.0).mean())

    def behind(self, estimates: Mapping[str, float], confidence: float = 0.95) -> dict[str, float]:
        """Return those that are behind the best estimate for sure, with their estimates.

        Each is left wrongly with a chance of (1 − confidence) / (candidates − 1) at most, if errors
        are normal.
        """
        best = max(estimates.values(), default=0.0)
        chance = (1 - confidence) / max(1, len(estimates) - 1)
        reach = NormalDist().inv_cdf(1 - chance) * self.error
        return {name: each for name, each in estimates.items() if best - each > reach}

    def to_text(self) -> str:
        """Say what is asked and what it costs."""
        of = self.estimator.reduced.of
        return (
            f"a reduced set of {len(self.items)} of {of} items, chosen from the answers of"
            f" {self.models} models; differences estimated from it err by {100 * self.error:.1f}"
            " points (root mean square, on models that took no part)"
        )


def screen_of(
    matrix: ScoreMatrix, share: float, groups: Mapping[str, str] | None = None, seed: int = 0
) -> Screen:
    """Choose a reduced set of so large a share of a matrix's items, and measure what it costs.

    `groups` maps models to what is left out with them when it is measured. Raises PairingError
    where too few models are known.
    """
    matrix = matrix.without_twins()
    if len(matrix.models) < LEAST_KNOWN:
        raise PairingError(
            f"suite '{matrix.suite}': {len(matrix.models)} models that answer differently are"
            f" known, and it takes {LEAST_KNOWN} to choose a reduced set and to measure its error"
        )
    size = max(len(matrix.benchmarks), round(share * len(matrix.items)))
    reduced = choose_items(matrix, size, seed=seed)
    rival = matrix.models[int(matrix.means().argmax())]
    known = {name: (groups or {}).get(name, name) for name in matrix.models}
    cost = held_back(matrix, rival, [size], groups=known, seed=seed)[0]
    return Screen(fit(matrix, reduced), cost.error, len(matrix.models))
