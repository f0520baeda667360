"""Item response models of two parameters (2PL; Birnbaum 1968): items are chosen by them.

The chance that a model with ability θ answers an item right is P = 1 / (1 + exp(−a (θ − b))), with
the item's slope a and difficulty b. One ability for each benchmark. All are fitted at once, as the
most likely values with priors (θ ~ N(0, 1), ln a ~ N(0, ½²), b ~ N(0, 2²)): without them an item
that all known models answer alike has no finite difficulty. Items are chosen where they say most
(Fisher's information, a² P (1 − P)) of abilities that occur, and a whole mean is the answers that
were given and P for the rest, as tinyBenchmarks do (p-IRT; Maia Polo et al. 2024,
arXiv 2402.14992). It is what `reduced` is compared with (benchmarks/reduced_sets.py).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from eval_ops.scores.matrices.matrix import Indices, ScoreMatrix, Values

SLOPE_SPREAD, DIFFICULTY_SPREAD = 0.5, 2.0
NEWTON_STEPS = 25
MOST_STEPS = 300


@dataclass(frozen=True, eq=False)
class ItemResponses:
    """Fitted items: `slope` and `difficulty` [items]; `ability` [models, benchmarks]."""

    slope: Values
    difficulty: Values
    ability: Values


def fit_responses(matrix: ScoreMatrix) -> ItemResponses:
    """Fit all benchmarks of a matrix, each for itself."""
    slope, difficulty = np.ones(len(matrix.items)), np.zeros(len(matrix.items))
    ability = np.zeros((len(matrix.models), len(matrix.benchmarks)))
    for column, benchmark in enumerate(matrix.benchmarks):
        places = matrix.where(benchmark)
        found = _fit(matrix.values[:, places])
        slope[places], difficulty[places], ability[:, column] = found
    return ItemResponses(slope, difficulty, ability)


def _fit(values: Values) -> tuple[Values, Values, Values]:
    """Slopes, difficulties and abilities of one benchmark's answers, [models, items]."""
    minimize: Any = import_module("scipy.optimize").minimize

    models, items = values.shape
    share = np.clip(values.mean(axis=1), 0.02, 0.98)
    first = np.log(share / (1 - share))
    easy = np.clip(values.mean(axis=0), 0.02, 0.98)
    start = np.concatenate([first - first.mean(), np.zeros(items), -np.log(easy / (1 - easy))])

    def loss(given: Any) -> tuple[float, Any]:
        theta, log_slope, b = np.split(given, [models, models + items])
        slope = np.exp(log_slope)
        apart = theta[:, None] - b
        logit = slope * apart
        likely = values * logit - np.logaddexp(0, logit)
        wrong = _sigmoid(logit) - values  # the slope of −likely over the logit
        prior = (theta @ theta + log_slope @ log_slope / SLOPE_SPREAD**2) / 2
        prior += (b @ b) / (2 * DIFFICULTY_SPREAD**2)
        of_theta = (wrong * slope).sum(axis=1) + theta
        of_slope = (wrong * logit).sum(axis=0) + log_slope / SLOPE_SPREAD**2
        of_b = -(wrong * slope).sum(axis=0) + b / DIFFICULTY_SPREAD**2
        return float(prior - likely.sum()), np.concatenate([of_theta, of_slope, of_b])

    options = {"maxiter": MOST_STEPS}
    found: Any = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    theta, log_slope, b = np.split(np.asarray(found.x, np.float64), [models, models + items])
    return np.exp(log_slope), b, theta


def most_informative(found: ItemResponses, places: Indices, column: int, count: int) -> list[int]:
    """Choose `count` of a benchmark's items: at each of as many abilities the one that says most.

    The abilities are evenly spaced quantiles of the known models'; `column` is the benchmark's.
    """
    at = np.quantile(found.ability[:, column], (np.arange(count) + 0.5) / count)
    chance = _sigmoid(found.slope[places] * (at[:, None] - found.difficulty[places]))
    information = np.round(found.slope[places] ** 2 * chance * (1 - chance), 12)
    chosen: list[int] = []
    for row in information:
        row[chosen] = -1.0
        chosen.append(int(row.argmax()))
    return places[chosen].tolist()


def estimated_means(found: ItemResponses, matrix: ScoreMatrix, asked: Indices) -> Values:
    """Estimate benchmark means [models, benchmarks] from answers to the items `asked`.

    Each model's ability is fitted to its answers, and stands for what it was not asked.
    """
    means = np.zeros((len(matrix.models), len(matrix.benchmarks)))
    for column, benchmark in enumerate(matrix.benchmarks):
        places = matrix.where(benchmark)
        inside = places[np.isin(places, asked)]
        rest = places[~np.isin(places, asked)]
        theta = _abilities(matrix.values[:, inside], found.slope[inside], found.difficulty[inside])
        chance = _sigmoid(found.slope[rest] * (theta[:, None] - found.difficulty[rest]))
        means[:, column] = (matrix.values[:, inside].sum(axis=1) + chance.sum(axis=1)) / len(places)
    return means


def _abilities(values: Values, slope: Values, difficulty: Values) -> Values:
    """The most likely abilities [models] behind answers [models, items], by Newton's method."""
    theta = np.zeros(len(values))
    for _ in range(NEWTON_STEPS):
        chance = _sigmoid(slope * (theta[:, None] - difficulty))
        down = ((values - chance) * slope).sum(axis=1) - theta
        theta += np.clip(down / ((slope**2 * chance * (1 - chance)).sum(axis=1) + 1), -1, 1)
    return theta


def _sigmoid(value: Values) -> Values:
    return np.exp(-np.logaddexp(0, -value))
