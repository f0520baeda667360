"""karcher: the mean of checkpoints on the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.kernels.elementary import arc_cosines, cosine, sine, sines_and_cosines
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.gram import GramMeasure, Matrix, inner, times
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values

OPPOSITE = 1e-12  # of 1 + cos: nearer to opposite, float64 does not know the direction


@dataclass(frozen=True)
class KarcherParameters:
    """How long to look for the mean, and how near is near enough, in radians."""

    max_iter: int = shared("max_iter", int, 10, "steps towards the mean", at_least=1)
    tol: float = shared("tol", float, 1e-5, "steps and angles below it are done", above=0)


def karcher_shares(gram: Matrix, parameters: KarcherParameters) -> list[float]:
    """The mean as shares of the inputs: it never leaves their span, so inner products suffice.

    Inputs no longer than `tol` have no direction; they count in the mean length only.
    """
    norms = np.sqrt(np.diag(gram).clip(min=0))
    if len(norms) == 1:
        return [1.0]
    tol = parameters.tol
    valid = np.flatnonzero(norms > tol)
    shares = np.zeros(len(norms))
    if len(valid) == 0:
        return shares.tolist()
    units = gram[np.ix_(valid, valid)] / np.outer(norms[valid], norms[valid])
    shares[valid] = _mean_direction(units, parameters.max_iter, tol) / norms[valid]
    return (shares * (math.fsum(norms.tolist()) / len(norms))).tolist()


def _mean_direction(units: Matrix, max_iter: int, tol: float) -> Matrix:
    """The Karcher mean of unit vectors with inner products `units`, as shares of them."""
    count = len(units)
    mean = np.full(count, 1 / count)
    length = _length(units, mean)
    mean = mean / length if length >= tol else np.eye(count)[0]
    for _ in range(max_iter):
        cosines = times(units, mean).clip(-1, 1)
        angles = arc_cosines(cosines)
        # Where an input is near there is nothing to add, where it is opposite no way is shortest.
        pulls = (angles >= tol) & (1 + cosines > OPPOSITE)
        growth = (
            np.divide(angles, sines_and_cosines(angles)[0], out=np.zeros(count), where=pulls)
            / count
        )
        tangent = growth - inner(growth, cosines) * mean
        length = _length(units, tangent)
        if length < tol:
            break
        mean = cosine(length) * mean + sine(length) / length * tangent
        length = _length(units, mean)
        mean = mean / length if length > tol else mean
    return mean


def _length(units: Matrix, shares: Matrix) -> float:
    """The length of a sum of unit vectors, shape (n,), whose inner products are `units`."""
    return math.sqrt(max(0.0, inner(shares, times(units, shares))))


@merge_method(
    "karcher",
    parameters=KarcherParameters,
    sees="checkpoints",
    span="element",
    family="basic",
    source="arXiv:2603.04972",
    arrays=True,
    measure=partial(GramMeasure, shares=karcher_shares),
    base="optional",
)
def karcher(
    checkpoints: Sequence[Values],
    shares: list[float],
    parameters: KarcherParameters,
    arithmetic: Arithmetic,
) -> WeightedSum:
    """θ = (Σ ‖θᵢ‖ / n) · m, m the point of the unit sphere nearest to all θᵢ/‖θᵢ‖, per tensor.

    Found by m ← cos‖T‖ m + sin‖T‖ T/‖T‖ with T = Σ (1/n) (φᵢ/sin φᵢ)(uᵢ − cos φᵢ m). As in
    mergekit all inputs count alike, a listed or named base with them.
    https://arxiv.org/abs/2603.04972

    Blocks are (n,), one for each checkpoint; the result is (n,).
    """
    return WeightedSum(checkpoints, shares)
