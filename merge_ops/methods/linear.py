"""linear: the weighted average of whole checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.measures.combination import WeightedSum
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.weight_sums import sum_of_all

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class LinearParameters:
    """`weight` for each checkpoint; `normalize` divides by their sum."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the checkpoint's share")
    normalize: bool = shared("normalize", bool, True, "divide by the sum of the weights")


@merge_method(
    "linear",
    parameters=LinearParameters,
    sees="checkpoints",
    span="element",
    family="basic",
    source="arXiv:2203.05482",
    arrays=True,
    sums_inputs=True,
    check=sum_of_all,
    base="optional",
)
def linear(
    checkpoints: Sequence[Values], _: None, parameters: LinearParameters, arithmetic: Arithmetic
) -> WeightedSum:
    """θ = Σ wᵢ θᵢ / Σ wᵢ  (without the division when `normalize` is false).

    Wortsman et al. 2022, "Model soups", https://arxiv.org/abs/2203.05482. As in mergekit the sum
    is taken first and divided once; weights whose sum is zero,
    or nearly, are refused when the plan is made.

    Blocks are (n,), one for each checkpoint; the result is (n,).
    """
    divisor = sum(parameters.weight) if parameters.normalize else 1
    return WeightedSum(checkpoints, parameters.weight, divisor)
