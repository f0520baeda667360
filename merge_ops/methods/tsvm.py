"""tsvm: the leading singular vectors of every task vector, made orthogonal to one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.measures.spectrum import (
    Directions,
    directions,
    inverse_root,
    mean,
    products,
    standing,
    times,
)
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class TsvmParameters:
    """`lambda` scales what is merged."""

    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@merge_method(
    "tsvm",
    parameters=TsvmParameters,
    sees="task_vectors",
    span="tensor",
    by_lapack=True,
    family="subspace",
    source="arXiv:2412.00081",
)
def tsvm(
    inputs: Sequence[Values], _: None, parameters: TsvmParameters, arithmetic: Arithmetic
) -> Tensor:
    """δ = λ Ũ Σ Ṽᵀ, Ũ and Ṽ the nearest orthonormal to the experts' leading singular vectors.

    Gargiulo et al. 2024, "Task Singular Vectors", https://arxiv.org/abs/2412.00081. Of each of T
    matrices δᵢ = Uᵢ Σᵢ Vᵢᵀ, r ranks at most, the ⌊r / T⌋ largest singular values are kept, and put
    side by side. As in the authors' code everything but a matrix is averaged; unlike there so is a
    matrix of less than T ranks (it would not move at all), no name is an exception (theirs is
    CLIP's `text_projection`), and directions a task vector does not have, such as those beyond the
    rank of a LoRA adapter, are left out instead of being drawn by chance. Takes T (T + 1) / 2
    square matrices of the shorter side in float64.
    """
    deltas = arithmetic.tensors(inputs)
    kept = min(deltas[0].shape) // len(deltas) if deltas[0].dim() == 2 else 0
    if kept == 0:
        return mean(deltas).mul_(parameters.lambda_)
    tall = standing(deltas)
    grams = products(tall)
    found = [directions(grams[i, i], kept) for i in range(len(tall))]
    square = _shares(grams, found)
    return times(tall, square, deltas[0]).mul_(parameters.lambda_)


def _shares(grams: dict[tuple[int, int], Tensor], found: Sequence[Directions]) -> list[Tensor]:
    """Wᵢ with Σ δᵢ Wᵢ = Ũ Σ Ṽᵀ: Uᵢ is δᵢ (Vᵢ Σᵢ⁻¹), so all of U follows from δᵢᵀδⱼ."""
    import torch

    scaled = [each.vectors / each.values for each in found]
    left = torch.cat(
        [
            torch.cat([_product(grams, scaled, i, j) for j in range(len(found))], dim=1)
            for i in range(len(found))
        ]
    )
    right = torch.cat([each.vectors for each in found], dim=1)
    values = torch.cat([each.values for each in found])
    middle = inverse_root(left) * values @ inverse_root(right.mT @ right) @ right.mT
    parts: list[Tensor] = []
    for each in scaled:
        parts.append(each @ middle[: each.shape[1]])
        middle = middle[each.shape[1] :]
    return parts


def _product(
    grams: dict[tuple[int, int], Tensor], scaled: Sequence[Tensor], i: int, j: int
) -> Tensor:
    """UᵢᵀUⱼ."""
    gram = grams[i, j] if i <= j else grams[j, i].mT
    return scaled[i].mT @ gram @ scaled[j]
