"""multislerp: along the sphere between many models or task vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.errors import NoDirectionError
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.gram import GramMeasure, Matrix, inner, times
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.weight_sums import sum_of_directions

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class MultislerpParameters:
    """`weight` for each model; `eps` is the length that counts as none."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the model's share")
    normalize_weights: bool = shared(
        "normalize_weights", bool, True, "divide the weights by their sum"
    )
    eps: float = shared("eps", float, 1e-8, "the length that counts as none", above=0)


def multislerp_shares(gram: Matrix, parameters: MultislerpParameters) -> list[float]:
    """(Σ wⱼ‖xⱼ‖) wᵢ / (‖xᵢ‖ ‖Σ wⱼ uⱼ‖), uⱼ the directions.

    Raises NoDirectionError where Σ wⱼ uⱼ is shorter than `eps`, unless there are two: then w.
    """
    weight = np.array(parameters.weight, dtype=np.float64)
    if len(weight) == 1:
        return [1.0]
    if parameters.normalize_weights:
        whole = sum(parameters.weight)
        if whole == 0:
            raise NoDirectionError(
                f"the weights {list(parameters.weight)} sum to zero, and `normalize_weights`"
                " divides by that"
            )
        weight /= whole
    norms = np.sqrt(np.diag(gram).clip(min=0))
    directions = weight / (norms + parameters.eps)
    length = math.sqrt(max(0.0, inner(directions, times(gram, directions))))
    if length >= parameters.eps:
        return (directions * inner(weight, norms) / length).tolist()
    if len(weight) == 2:
        return weight.tolist()
    raise NoDirectionError(
        f"the directions of the models, weighted by {list(parameters.weight)}, cancel out; change"
        " the weights or use linear"
    )


@merge_method(
    "multislerp",
    parameters=MultislerpParameters,
    sees="either",
    span="element",
    family="basic",
    source="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
    arrays=True,
    measure=partial(GramMeasure, shares=multislerp_shares),
    check=sum_of_directions,
    base="optional",
)
def multislerp(
    inputs: Sequence[Values],
    shares: list[float],
    parameters: MultislerpParameters,
    arithmetic: Arithmetic,
) -> WeightedSum:
    """(Σ wᵢ‖xᵢ‖) · Σ wᵢuᵢ / ‖Σ wᵢuᵢ‖, uᵢ = xᵢ/‖xᵢ‖, per tensor.

    Goddard 2024 (mergekit). Its way over the tangent space at the mean ends where it began: the
    weighted tangents at the weighted mean add up to nothing.

    Blocks are (n,), one for each model; the result is (n,).
    """
    return WeightedSum(inputs, shares)
