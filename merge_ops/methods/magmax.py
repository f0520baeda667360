"""magmax: of every entry, the largest change any expert made."""

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
class MagmaxParameters:
    """`lambda` scales the merged task vector."""

    lambda_: float = shared("lambda", float, 0.5, "the scale of the merged task vector")


@merge_method(
    "magmax",
    parameters=MagmaxParameters,
    sees="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2407.06322",
)
def magmax(
    deltas: Sequence[Values], _: None, parameters: MagmaxParameters, arithmetic: Arithmetic
) -> Tensor:
    """δ = λ δ* where δ* is, entry by entry, the δᵢ of largest magnitude; the later of equals.

    Marczak et al. 2024, "MagMax", https://arxiv.org/abs/2407.06322; λ is 0.5 as in their code.
    mergekit has no such method.

    Blocks are (n,), one for each expert; the result is (n,).
    """
    import torch

    largest, *others = arithmetic.tensors(deltas)
    for delta in others:
        largest = torch.where(delta.abs() >= largest.abs(), delta, largest)
    return largest * parameters.lambda_
