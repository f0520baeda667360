"""task_arithmetic: the base plus a scaled sum of task vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.trimmed_blocks import TrimmedBlock
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.weight_sums import NEAR_ZERO, sum_of_task_vectors

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class TaskArithmeticParameters:
    """`weight` for each expert, `lambda` for their sum."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the expert's share")
    normalize: bool = shared("normalize", bool, False, "divide by the sum of the weights")
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@merge_method(
    "task_arithmetic",
    parameters=TaskArithmeticParameters,
    sees="task_vectors",
    span="element",
    family="basic",
    source="arXiv:2212.04089",
    arrays=True,
    sums_inputs=True,
    check=sum_of_task_vectors,
    unused=("density", "rescale", "int8_mask"),
)
def task_arithmetic(
    deltas: Sequence[Values], _: None, parameters: TaskArithmeticParameters, arithmetic: Arithmetic
) -> WeightedSum:
    """δ = λ Σ wᵢ δᵢ  (divided by Σ wᵢ when `normalize`).

    Ilharco et al. 2023, "Editing models with task arithmetic", https://arxiv.org/abs/2212.04089.
    Negative weights unlearn. As in mergekit a sum of weights of zero divides by one; one that is
    nearly zero is refused.

    Blocks are (n,), one for each expert; the result is (n,).
    """
    return scaled_sum(deltas, parameters.weight, parameters.normalize, parameters.lambda_)


def scaled_sum(
    deltas: Sequence[Values | TrimmedBlock],
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
) -> WeightedSum:
    """λ Σ wᵢ δᵢ, divided by Σ wᵢ when `normalize`; blocks of equal shapes, to be worked out."""
    divisor = sum(weight) if normalize else 1
    return WeightedSum(deltas, weight, divisor if abs(divisor) >= NEAR_ZERO else 1, lambda_)
