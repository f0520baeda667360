"""Task vectors cut to a band of their magnitudes, as methods pass them on to the sums at their end.

Loops in C look at the band while they go over a block, so nothing of the block's size is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.kernels.loops import Band
from merge_ops.kernels.values import zeros_like
from merge_ops.measures.selection import Threshold, ends_of_band, keep_between

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """Of a flat block, what `lower` keeps (all where it is None) and `upper` does not, × factor.

    Without either, or where `nothing` is kept, it is all or nothing.
    """

    values: Tensor
    block: int
    lower: Threshold | None = None
    upper: Threshold | None = None
    nothing: bool = False
    factor: float = 1.0

    @property
    def whole(self) -> bool:
        """Whether it is the block as it is."""
        return not (self.nothing or self.lower or self.upper or self.factor != 1)

    @property
    def band(self) -> Band | None:
        """As loops in C take it; None for a whole block."""
        if self.whole:
            return None
        if self.nothing:
            return math.inf, 0, math.inf, 0, self.factor
        return *ends_of_band(self.values, self.block, self.lower, self.upper), self.factor

    def made(self) -> Tensor:
        """The block with everything else set to zero; a whole one is itself."""
        kept = self.values
        if self.nothing:
            kept = zeros_like(kept)
        elif self.upper:
            kept = keep_between(kept, self.block, self.lower, self.upper)
        elif self.lower:
            kept = self.lower.apply(kept, self.block)
        return kept if self.factor == 1 else kept * self.factor


def blocks_of(parts: Sequence[Tensor | Cut]) -> tuple[list[Tensor], list[Band | None]]:
    """The blocks of cut and whole parts, and how each is cut."""
    blocks = [each.values if isinstance(each, Cut) else each for each in parts]
    return blocks, [each.band if isinstance(each, Cut) else None for each in parts]


def made(parts: Sequence[Tensor | Cut]) -> list[Tensor]:
    """All parts as tensors."""
    return [each.made() if isinstance(each, Cut) else each for each in parts]
