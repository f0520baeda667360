"""iso_c and iso_cts: the merged task vector with all its singular values made equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.measures.spectrum import directions, inverse_root, mean, products, standing, times
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class IsoCParameters:
    """`lambda` scales what is merged."""

    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@merge_method(
    "iso_c",
    parameters=IsoCParameters,
    sees="task_vectors",
    span="tensor",
    by_lapack=True,
    family="subspace",
    source="arXiv:2502.04959",
)
def iso_c(
    inputs: Sequence[Values], _: None, parameters: IsoCParameters, arithmetic: Arithmetic
) -> Tensor:
    """δ = λ σ̄ U Vᵀ, where Σ δᵢ = U Σ Vᵀ and σ̄ is the mean of all its singular values.

    Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging",
    https://arxiv.org/abs/2502.04959 (Iso-C). As in the authors' code everything but a matrix is
    averaged, not summed; unlike there no name is an exception (theirs is CLIP's `text_projection`).
    Where Σ δᵢ is not of full rank, as with LoRA adapters, its U and V leave room for chance: the
    directions it does not have stay as they are in the base, and count as zeros in σ̄.
    """
    average = mean(arithmetic.tensors(inputs))
    count = len(inputs)
    if average.dim() != 2:
        return average.mul_(parameters.lambda_)
    whole = standing([average.mul_(count)])
    found = directions(products(whole)[0, 0])
    level = found.values.sum() / whole[0].shape[1]
    square = found.vectors / found.values @ found.vectors.mT * level
    return times(whole, [square], average).mul_(parameters.lambda_)


@dataclass(frozen=True)
class IsoCtsParameters:
    """Which share of the directions the experts have in common; `lambda` scales what is merged."""

    common_space_fraction: float = shared(
        "common_space_fraction",
        float,
        0.8,
        "the share of directions taken from the sum of the task vectors",
        at_least=0,
        at_most=1,
    )
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@merge_method(
    "iso_cts",
    parameters=IsoCtsParameters,
    sees="task_vectors",
    span="tensor",
    by_lapack=True,
    family="subspace",
    source="arXiv:2502.04959",
)
def iso_cts(
    inputs: Sequence[Values], _: None, parameters: IsoCtsParameters, arithmetic: Arithmetic
) -> Tensor:
    """iso_c with its least directions replaced by leading ones of each expert beside the others.

    Marczak et al. 2025 (Iso-CTS). Of r directions the first `common_space_fraction` are those of
    M = Σ δᵢ, with left singular vectors U_c; the others are, in equal numbers, the leading ones of
    δᵢ − U_c U_cᵀ δᵢ. All of them together are made orthonormal as in tsvm, and get the mean of
    their singular values. As in the authors' code the common ones make up for a remainder, and
    everything but a matrix is averaged. Directions that a task vector does not have are left out.
    Takes a square matrix T times as wide as the shorter side for T experts, and others like it.
    """
    deltas = arithmetic.tensors(inputs)
    if deltas[0].dim() != 2:
        return mean(deltas).mul_(parameters.lambda_)
    tall = standing(deltas)
    turned = deltas[0].shape[0] < deltas[0].shape[1]
    square = _common_and_own(products(tall), parameters.common_space_fraction, turned)
    short = tall[0].shape[1]
    parts = [square[start : start + short] for start in range(0, len(square), short)]
    return times(tall, parts, deltas[0]).mul_(parameters.lambda_)


def common_and_own_counts(ranks: int, fraction: float, experts: int) -> tuple[int, int]:
    """How many directions are common, and how many each expert adds."""
    own = min(round((ranks - int(ranks * fraction)) / experts), ranks // experts)
    return ranks - own * experts, own


def _common_and_own(grams: dict[tuple[int, int], Tensor], fraction: float, turned: bool) -> Tensor:
    """W, shape (T n, n), with [δ₁ … δ_T] W the result.

    Every left singular vector is [δ₁ … δ_T] times a column, so inner products follow from the δᵢᵀδⱼ
    alone. Of matrices that were turned, U_c are the right singular vectors.
    """
    import torch

    short = grams[0, 0].shape[0]
    count = max(i for i, _ in grams) + 1
    whole = torch.cat(
        [
            torch.cat([grams[i, j] if i <= j else grams[j, i].mT for j in range(count)], dim=1)
            for i in range(count)
        ]
    )
    unit = torch.eye(short, dtype=whole.dtype, device=whole.device)
    together = unit.repeat(count, 1)
    common, own = common_and_own_counts(short, fraction, count)
    found = directions(together.mT @ whole @ together, common)
    left_common = together @ (found.vectors / found.values)
    left, right, values = [left_common], [found.vectors], [found.values]
    for i in range(count):
        alone = torch.zeros_like(together)
        alone[i * short : (i + 1) * short] = unit
        if turned:
            alone -= alone @ found.vectors @ found.vectors.mT
        else:
            alone -= left_common @ (left_common.mT @ whole @ alone)
        largest = float(directions(grams[i, i], 1).values.sum())
        added = directions(alone.mT @ whole @ alone, own, beside=largest)
        left.append(alone @ (added.vectors / added.values))
        right.append(added.vectors)
        values.append(added.values)
    lefts, rights = torch.cat(left, dim=1), torch.cat(right, dim=1)
    level = torch.cat(values).sum() / short
    orthonormal = lefts @ inverse_root(lefts.mT @ whole @ lefts)
    return orthonormal * level @ inverse_root(rights.mT @ rights) @ rights.mT
