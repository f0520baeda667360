"""The weighted sum of tensors: what most methods end with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING

from merge_ops.kernels import loops as kernels
from merge_ops.measures.cuts import Cut, blocks_of, made

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class WeightedSum:
    """Σ wᵢ xᵢ / divisor · scale, to be worked out; float32 parts of equal shapes.

    The first product is rounded, every further one is added to the sum with one rounding (fused),
    as torch does it where the processor can. Parts stay as they are.
    """

    parts: Sequence[Tensor | Cut]
    weights: Sequence[float]
    divisor: float = 1
    scale: float = 1

    def made(self) -> Tensor:
        """The sum as a new tensor."""
        merged = kernels.weighted_sum(
            *blocks_of(self.parts), self.weights, self.divisor, self.scale
        )
        if merged is not None:
            return merged
        whole = made(self.parts)
        merged = whole[0] * self.weights[0]
        for tensor, weight in zip(whole[1:], self.weights[1:], strict=True):
            merged.add_(tensor, alpha=weight)
        if self.divisor != 1:
            merged.div_(self.divisor)
        return merged.mul_(self.scale) if self.scale != 1 else merged

    def is_of(self, tensors: Sequence[Tensor]) -> bool:
        """Whether its parts are these very tensors, whole."""
        return len(self.parts) == len(tensors) and all(map(is_, self.parts, tensors))


def worked_out(merged: Tensor | WeightedSum) -> Tensor:
    """What a method returned, as a tensor."""
    return merged.made() if isinstance(merged, WeightedSum) else merged


def grouped(
    results: Iterable[Tensor | WeightedSum], inputs: Sequence[Tensor]
) -> Iterator[list[Tensor | WeightedSum]]:
    """Results in order: sums of the inputs, which take no memory, together, others one by one."""
    sums: list[Tensor | WeightedSum] = []
    for each in results:
        if isinstance(each, WeightedSum) and each.is_of(inputs):
            sums.append(each)
            continue
        if sums:
            yield sums
            sums = []
        yield [each]
    if sums:
        yield sums


def sums_as_bfloat16(
    sums: Sequence[WeightedSum], base: Tensor | None
) -> list[NDArray[np.uint16]] | None:
    """The bits of sums of the same parts, each plus the base, rounded once.

    None where C cannot do it. Where parts are cut there is one sum.
    """
    first = sums[0]
    return kernels.weighted_sums_to_bfloat16(
        *blocks_of(first.parts),
        [(each.weights, each.divisor, each.scale) for each in sums],
        base,
    )
