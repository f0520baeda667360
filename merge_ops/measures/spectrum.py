"""Matrix methods by the Gram matrices of their shorter side, in float64.

A singular value decomposition M = U Σ Vᵀ of a long matrix is known from the small square
MᵀM = V Σ² Vᵀ: U = M V Σ⁻¹. What the methods need can all be written as M times a square matrix, so
that signs and rotations of singular vectors never show, and an embedding of 150,000 × 4,096 costs
square matrices of 4,096 and is gone through in runs of rows. Squares of float32 values are exact in
float64; singular values below `NONE` of the largest, where float32 itself holds no more than
rounding, count as zero, and their directions are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

NONE = 1e-6
DEPENDENT = 1e-4  # columns of unit length that are nearly dependent: of their singular values
ROWS = 1 << 22  # elements of a run of rows


@dataclass(frozen=True)
class Directions:
    """Right singular vectors as columns, shape (n, k), and their singular values, largest first."""

    vectors: Tensor
    values: Tensor


def standing(matrices: Sequence[Tensor]) -> list[Tensor]:
    """The matrices, turned if they are wider than high: views of shape (long, short)."""
    rows, columns = matrices[0].shape
    return [each.mT if rows < columns else each for each in matrices]


def products(matrices: Sequence[Tensor]) -> dict[tuple[int, int], Tensor]:
    """MᵢᵀMⱼ in float64 for all i ≤ j, of standing matrices: each shape (short, short)."""
    import torch

    long, short = matrices[0].shape
    pairs = list(combinations_with_replacement(range(len(matrices)), 2))
    found = {
        pair: torch.zeros(short, short, dtype=torch.float64, device=matrices[0].device)
        for pair in pairs
    }
    for rows in runs(long, short):
        parts = [each[rows].double() for each in matrices]
        for i, j in pairs:
            found[i, j].addmm_(parts[i].mT, parts[j])
    return found


def directions(
    gram: Tensor, count: int | None = None, none: float = NONE, beside: float = 0.0
) -> Directions:
    """The `count` leading directions of a matrix with this Gram matrix; fewer at lower rank.

    Values up to `none` times the largest, or `beside` (that of what it was made from), are zero.
    """
    import torch

    linalg: Any = torch.linalg  # which has no types
    squares, vectors = cast("tuple[Tensor, Tensor]", linalg.eigh(gram))
    values = squares.flip(0).clamp_min(0).sqrt()
    rank = int((values > none * values[:1].clamp_min(beside)).sum())
    kept = rank if count is None else min(count, rank)
    return Directions(vectors.flip(1)[:, :kept], values[:kept])


def inverse_root(gram: Tensor) -> Tensor:
    """G^(−1/2), on the directions that G has: U G^(−1/2) is the nearest orthonormal to U, UᵀU = G.

    Written as an SVD it is U = P D Qᵀ ↦ P Qᵀ. Where columns of U depend on one another that leaves
    some of P to chance; here those directions are left out.
    """
    found = directions(gram, none=DEPENDENT)
    return found.vectors / found.values @ found.vectors.mT


def times(matrices: Sequence[Tensor], squares: Sequence[Tensor], like: Tensor) -> Tensor:
    """Σ Mᵢ Wᵢ of standing matrices, rounded to float32, in the shape of `like`."""
    long, short = matrices[0].shape
    result = like.new_empty(like.shape)
    into = standing([result])[0]
    for rows in runs(long, short):
        total = matrices[0][rows].double() @ squares[0]
        for matrix, square in zip(matrices[1:], squares[1:], strict=True):
            total.addmm_(matrix[rows].double(), square)
        into[rows] = total.float()
    return result


def runs(long: int, short: int) -> list[slice]:
    """Runs of rows: always the same for a shape, whatever the settings."""
    step = max(1, ROWS // max(1, short))
    return [slice(start, start + step) for start in range(0, long, step)]


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """The mean is the plain average, entry by entry: what these methods do to vectors.

    Tensors of equal shapes in, a new one of that shape out.
    """
    total = tensors[0].clone()
    for each in tensors[1:]:
        total.add_(each)
    return total.div_(len(tensors))
