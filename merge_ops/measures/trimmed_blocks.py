"""Blocks of task vectors trimmed to a band of magnitudes, as methods pass them on to their sums.

The loops in C look at the band while they go over a block, so nothing of the block's size is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.kernels.arithmetic import Arithmetic, Band

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Values


@dataclass(frozen=True)
class TrimmedBlock:
    """A block, shape (n,), of which only the entries in its band count; all where that is None."""

    values: Values
    band: Band | None = None

    def made(self, arithmetic: Arithmetic) -> Values:
        """The block with everything else set to zero, shape (n,); a whole one is itself."""
        if self.band is None:
            return self.values
        return arithmetic.keep_band(self.values, self.band)


def blocks_of(parts: Sequence[Values | TrimmedBlock]) -> tuple[list[Values], list[Band | None]]:
    """Every part gives its block, in the shape it has, and its band: None where it is whole."""
    blocks = [part.values if isinstance(part, TrimmedBlock) else part for part in parts]
    return blocks, [part.band if isinstance(part, TrimmedBlock) else None for part in parts]
