"""iso_c: the merged task vector with all its singular values made equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.methods.registry import merge_method
from merge_ops.parameters import shared
from merge_ops.spectrum import directions, mean, products, standing, times

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class IsoCParameters:
    """`lambda` scales what is merged."""

    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@merge_method(
    "iso_c",
    parameters=IsoCParameters,
    inputs="task_vectors",
    span="tensor",
    family="subspace",
    source="arXiv:2502.04959",
)
def iso_c(deltas: Sequence[Tensor], statistics: None, parameters: IsoCParameters) -> Tensor:
    """δ = λ σ̄ U Vᵀ, where Σ δᵢ = U Σ Vᵀ and σ̄ is the mean of all its singular values.

    Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging",
    https://arxiv.org/abs/2502.04959 (Iso-C). As in the authors' code everything but a matrix is
    averaged, not summed; unlike there no name is an exception (theirs is CLIP's `text_projection`).
    Where Σ δᵢ is not of full rank, as with LoRA adapters, its U and V leave room for chance: the
    directions it does not have stay as they are in the base, and count as zeros in σ̄.
    """
    average = mean(deltas)
    if average.dim() != 2:
        return average.mul_(parameters.lambda_)
    whole = standing([average.mul_(len(deltas))])
    found = directions(products(whole)[0, 0])
    level = found.values.sum() / whole[0].shape[1]
    square = found.vectors / found.values @ found.vectors.mT * level
    return times(whole, [square], average).mul_(parameters.lambda_)
