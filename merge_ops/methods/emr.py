"""emr: one task vector for all experts: of every entry the elected sign and largest magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class EmrParameters:
    """`lambda` scales the unified task vector."""

    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


def unified(deltas: Sequence[Tensor]) -> Tensor:
    """s · max{|δᵢ| : sign δᵢ = s}, s the sign of Σ δᵢ (plus where that is zero), entry by entry.

    Tensors of equal shapes in, a new one of that shape out.
    """
    import torch

    from merge_ops.kernels.torch_arithmetic import elected_sign

    sign = elected_sign(deltas)
    largest = (deltas[0] * sign).clamp_min_(0)
    for delta in deltas[1:]:
        torch.maximum(largest, delta * sign, out=largest)
    return largest.mul_(sign)


@merge_method(
    "emr",
    parameters=EmrParameters,
    sees="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2405.17461",
)
def emr(
    deltas: Sequence[Values], _: None, parameters: EmrParameters, arithmetic: Arithmetic
) -> Tensor:
    """δ = λ · s · max{|δᵢ| : sign δᵢ = s}, s the sign of Σ δᵢ; 0 where nobody has that sign.

    Huang et al. 2024, "EMR-Merging", https://arxiv.org/abs/2405.17461: "elect" of elect, mask and
    rescale, with λ = 1. This is the one checkpoint that all tasks share. An expert is restored from
    it by a mask and a scale of its own: `ronghe merge --masks` writes them, a catalog keeps them
    beside its merged checkpoints, `ronghe restore-expert` makes a checkpoint of them. mergekit has
    no such method.

    Blocks are (n,), one for each expert; the result is (n,).
    """
    merged = unified(arithmetic.tensors(deltas))
    return merged.mul_(parameters.lambda_) if parameters.lambda_ != 1 else merged
