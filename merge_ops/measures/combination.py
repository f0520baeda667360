"""The weighted sum of tensors: what most methods end with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.kernels.arithmetic import Arithmetic, Sum
from merge_ops.measures.trimmed_blocks import TrimmedBlock, blocks_of

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Values


@dataclass(frozen=True)
class WeightedSum:
    """Σ wᵢ xᵢ / divisor · scale, to be worked out; float32 parts of equal shapes.

    Every product and every sum is rounded. Parts stay as they are.
    """

    parts: Sequence[Values | TrimmedBlock]
    weights: Sequence[float]
    divisor: float = 1
    scale: float = 1

    @property
    def numbers(self) -> Sum:
        """Its weights, divisor and scale."""
        return self.weights, self.divisor, self.scale

    def made(self, arithmetic: Arithmetic) -> Values:
        """The sum as new values of the parts' shape."""
        return arithmetic.weighted_sum(*blocks_of(self.parts), *self.numbers)
