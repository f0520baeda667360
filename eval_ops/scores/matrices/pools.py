"""Models that answer together: pools of their likelihoods, and a cascade by confidence.

A pool needs nothing but the log-likelihoods that were stored with the scores. Weights are fitted on
validation items by log loss, which is convex for both pools.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval_ops.scores.matrices.matrix import Indices, ScoreMatrix, Values

STEPS = 300
FLOOR = 1e-12
MOST_PAIRED = 8
"""Models of which any two may form a cascade: the best on validation."""
QUANTILES = 20
"""Thresholds that a cascade is tried with."""


def can_pool(matrix: ScoreMatrix) -> NDArray[np.bool_]:
    """Tell of each item whether its choices follow from the log-likelihoods, shape [items].

    They do not where a metric weighs them otherwise (per character), and for generated answers.
    """
    if not matrix.loglikelihoods.shape[2]:
        return np.zeros(len(matrix.items), dtype=bool)
    likeliest = matrix.loglikelihoods.argmax(axis=2)
    return (matrix.answers >= 0) & (likeliest == matrix.choices).all(axis=0)


def probabilities(matrix: ScoreMatrix) -> Values:
    """Return each model's probabilities of the choices, shape [models, items, choices]."""
    shifted = matrix.loglikelihoods - matrix.loglikelihoods.max(axis=2, keepdims=True)
    grown = np.exp(shifted)
    return grown / grown.sum(axis=2, keepdims=True)


def linear_weights(given: Values, answers: Indices) -> Values:
    """Fit Σ w p by expectation maximization; returns w [models], which sum to 1.

    `given` are probabilities [models, items, choices], `answers` [items] the right choices.
    """
    right = np.maximum(given[:, np.arange(len(answers)), answers], FLOOR)
    weights = np.full(len(given), 1 / len(given))
    for _ in range(STEPS):
        shares = weights[:, None] * right
        weights = (shares / shares.sum(axis=0)).mean(axis=1)
    return weights


def log_weights(given: Values, answers: Indices) -> Values:
    """Fit softmax(Σ w log p) with w ≥ 0 by projected steps; returns w [models]."""
    logs = np.log(np.maximum(given, FLOOR))
    at = np.arange(len(answers))
    weights = np.full(len(given), 1 / len(given))

    def loss_and_slope(w: Values) -> tuple[float, Values]:
        mixed = np.tensordot(w, logs, axes=1)
        mixed -= mixed.max(axis=1, keepdims=True)
        expected = np.exp(mixed)
        expected /= expected.sum(axis=1, keepdims=True)
        loss = -np.log(np.maximum(expected[at, answers], FLOOR)).mean()
        slope = (expected[None] * logs).sum(axis=2).mean(axis=1) - logs[:, at, answers].mean(axis=1)
        return float(loss), slope

    step = 1.0
    loss, slope = loss_and_slope(weights)
    for _ in range(STEPS):
        tried = np.maximum(weights - step * slope, 0.0)
        if not tried.any():
            step /= 2
            continue
        better, further = loss_and_slope(tried)
        if better <= loss:
            weights, loss, slope, step = tried, better, further, step * 1.5
        else:
            step /= 2
            if step < 1e-9:
                break
    return weights


def pooled(given: Values, weights: Values, log: bool) -> Indices:
    """Return the choice of a pool for each item, shape [items]."""
    parts = np.log(np.maximum(given, FLOOR)) if log else given
    return np.round(np.tensordot(weights, parts, axes=1), 12).argmax(axis=1)


@dataclass(frozen=True)
class Cascade:
    """Ask `first`; where its margin is below `threshold`, ask `then` and take that answer."""

    first: int
    then: int
    threshold: float

    def answers(self, matrix: ScoreMatrix) -> tuple[Values, float]:
        """Return the values of the items, and the share of them that `then` was asked."""
        unsure = margins(matrix)[self.first] < self.threshold
        values = matrix.values[self.first].copy()
        values[unsure] = matrix.values[self.then][unsure]
        return values, float(unsure.mean())


def margins(matrix: ScoreMatrix) -> Values:
    """Return how far a model's likeliest choice is ahead of the next one, [models, items].

    Infinite where an item has no two choices: there is nothing to be unsure about.
    """
    if matrix.loglikelihoods.shape[2] < 2:
        return np.full(matrix.values.shape, np.inf)
    ordered = np.sort(matrix.loglikelihoods, axis=2)
    with np.errstate(invalid="ignore"):
        margin = ordered[..., -1] - ordered[..., -2]
    return np.nan_to_num(margin, nan=np.inf, posinf=np.inf)


def choose_cascade(matrix: ScoreMatrix, preferred: Indices) -> Cascade:
    """Choose two models and a threshold on validation items; of equals the one that asks less."""
    weights, margin = matrix.weights(), margins(matrix)
    best = Cascade(int(preferred[0]), int(preferred[0]), -np.inf)
    reached, asked = float(matrix.values[preferred[0]] @ weights), 0.0
    for first in preferred[:MOST_PAIRED]:
        finite = margin[first][np.isfinite(margin[first])]
        if not len(finite):
            continue
        steps = np.quantile(finite, np.linspace(0, 1, QUANTILES + 1)[1:])
        for then in preferred[:MOST_PAIRED]:
            if then == first:
                continue
            for threshold in steps:
                tried = Cascade(int(first), int(then), float(threshold))
                values, share = tried.answers(matrix)
                value = float(values @ weights)
                if (round(value, 12), -share) > (round(reached, 12), -asked):
                    best, reached, asked = tried, value, share
    return best
