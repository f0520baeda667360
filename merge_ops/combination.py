"""The weighted sum of tensors: what most methods end with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merge_ops import kernels
from merge_ops.cuts import Cut, blocks_of, made

if TYPE_CHECKING:
    from torch import Tensor


def weighted_sum(
    tensors: Sequence[Tensor | Cut],
    weights: Sequence[float],
    divisor: float = 1,
    scale: float = 1,
) -> Tensor:
    """Σ wᵢ xᵢ / divisor · scale, a new tensor; float32 of equal shapes, which stay as they are.

    The first product is rounded, every further one is added to the sum with one rounding (fused),
    as torch does it where the processor can.
    """
    merged = kernels.weighted_sum(*blocks_of(tensors), weights, divisor, scale)
    if merged is not None:
        return merged
    whole = made(tensors)
    merged = whole[0] * weights[0]
    for tensor, weight in zip(whole[1:], weights[1:], strict=True):
        merged.add_(tensor, alpha=weight)
    if divisor != 1:
        merged.div_(divisor)
    return merged.mul_(scale) if scale != 1 else merged
