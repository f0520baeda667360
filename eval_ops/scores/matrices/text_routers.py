"""Routers that read an item's text: neighbours, and logistic regression, one a model.

Both learn from validation items what each model gets right, and give the item to the model that
they expect to be right most often. Neighbours as in RouterBench (Hu et al. 2024, arXiv 2403.12031)
with hashed n-grams for embeddings; the regression is fitted by Böhning and Lindsay's bound on its
curvature (1988), so one inverse serves all models and steps.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Features = NDArray[np.float64]
Predictor = Callable[[Features], Values]
"""Texts' features [texts, buckets] → expected values [models, texts]."""

NEIGHBOURS = 16
FOLDED = 256
"""Features of the regression: neighbours use all."""
PENALTIES = (0.03, 0.3, 3.0)
STEPS = 40
FOLDS = 5


def neighbours(texts: Features, values: Values, k: int = NEIGHBOURS) -> Predictor:
    """Return the predictor that takes the mean over the `k` most similar texts (cosine).

    `texts` are [items, buckets], `values` [models, items]. Equally similar ones count in the order
    of the items.
    """

    def predict(asked: Features) -> Values:
        alike = np.round(asked @ texts.T, 9)
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, : min(k, len(texts))]
        return values[:, nearest].mean(axis=2)

    return predict


def logistic(texts: Features, values: Values) -> Predictor:
    """Return the predictor by logistic regression on folded features, its penalty by validation.

    Values are taken as shares of right answers, and cut to 0 … 1.
    """
    folded, shares = _folded(texts), np.clip(values, 0.0, 1.0)
    penalty = PENALTIES[0]
    if len(texts) >= 2 * FOLDS:
        losses = [_held_back_loss(folded, shares, each) for each in PENALTIES]
        penalty = PENALTIES[int(np.argmin(losses))]
    weights = _fit(folded, shares, penalty)

    def predict(asked: Features) -> Values:
        return _sigmoid(_with_one(_folded(asked)) @ weights).T

    return predict


def cross_validated(
    make: Callable[[Features, Values], Predictor], texts: Features, values: Values
) -> Values:
    """Return what a router expects of each item from the others, shape [models, items].

    Item n is in fold n modulo FOLDS, so the same items always give the same folds.
    """
    expected = np.zeros_like(values)
    fold_of = np.array([n % FOLDS for n in range(values.shape[1])], dtype=np.int64)
    for fold in range(min(FOLDS, values.shape[1])):
        inside, outside = fold_of == fold, fold_of != fold
        if not outside.any():
            expected[:, inside] = values.mean(axis=1, keepdims=True)
            continue
        expected[:, inside] = make(texts[outside], values[:, outside])(texts[inside])
    return expected


def routed(expected: Values, preferred: Sequence[int]) -> NDArray[np.int64]:
    """Return the model of each item: the one expected best; of equals the one preferred first."""
    order = np.asarray(preferred)
    return order[np.argmax(np.round(expected[order], 12), axis=0)]


def _folded(texts: Features) -> Features:
    if texts.shape[1] <= FOLDED:
        return texts
    folded = texts.reshape(len(texts), -1, FOLDED).sum(axis=1)
    norms = np.linalg.norm(folded, axis=1, keepdims=True)
    return folded / np.where(norms > 0, norms, 1.0)


def _with_one(texts: Features) -> Features:
    return np.hstack([texts, np.ones((len(texts), 1))])


def _fit(texts: Features, shares: Values, penalty: float) -> Values:
    """Weights [features + 1, models]; the last feature is the constant, and has no penalty."""
    span = None
    if len(texts) < texts.shape[1]:  # the penalty keeps weights within the span of the few texts
        span = np.linalg.qr(texts.T)[0]
        texts = texts @ span
    x = _with_one(texts)
    ridge = np.full(x.shape[1], penalty)
    ridge[-1] = 1e-6
    bound = x.T @ x / 4 + np.diag(ridge)
    inverse = np.linalg.inv(bound)  # once for all steps and models: each step is two products then
    weights = np.zeros((x.shape[1], len(shares)))
    for _ in range(STEPS):
        slope = x.T @ (shares.T - _sigmoid(x @ weights)) - ridge[:, None] * weights
        weights += inverse @ slope
    return weights if span is None else np.vstack([span @ weights[:-1], weights[-1:]])


def _held_back_loss(texts: Features, shares: Values, penalty: float) -> float:
    fold_of = np.arange(len(texts)) % FOLDS
    loss = 0.0
    for fold in range(FOLDS):
        inside, outside = fold_of == fold, fold_of != fold
        weights = _fit(texts[outside], shares[:, outside], penalty)
        expected = np.clip(_sigmoid(_with_one(texts[inside]) @ weights).T, 1e-9, 1 - 1e-9)
        right = shares[:, inside]
        loss -= float((right * np.log(expected) + (1 - right) * np.log(1 - expected)).sum())
    return loss


def _sigmoid(values: Values) -> Values:
    return 0.5 * (1 + np.tanh(0.5 * values))
