"""A monomial takes entries in another order, each times a factor.

Orders, signs and powers of two are exact in every float format, so that what is done to weights by
such a monomial is undone bit for bit by its inverse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import blake3
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Monomial:
    """A monomial gives `out[i] = scale[i] · in[index[i]]`; both arrays have shape (n,)."""

    index: NDArray[np.int64]
    scale: NDArray[np.float64]

    @property
    def size(self) -> int:
        """Return the number of entries."""
        return len(self.index)

    @property
    def is_identity(self) -> bool:
        """Return whether every entry stays where and as it is."""
        ordered = bool((self.index == np.arange(self.size)).all())
        return ordered and bool((self.scale == 1.0).all())

    @property
    def is_exact(self) -> bool:
        """Return whether all factors are powers of two, with a sign."""
        return bool((np.abs(np.frexp(self.scale)[0]) == 0.5).all())

    @property
    def digest(self) -> str:
        """Return a digest that covers every number."""
        content = self.index.astype("<i8").tobytes() + self.scale.astype("<f8").tobytes()
        return blake3.blake3(content).hexdigest()

    def then(self, following: Monomial) -> Monomial:
        """Return the monomial that does this one first, and then another of the same size."""
        index = self.index[following.index]
        return Monomial(index, following.scale * self.scale[following.index])

    def inverse(self) -> Monomial:
        """Return the monomial that undoes this one."""
        index, scale = np.empty_like(self.index), np.empty_like(self.scale)
        index[self.index] = np.arange(self.size)
        scale[self.index] = 1.0 / self.scale
        return Monomial(index, scale)

    def unscaled(self) -> Monomial:
        """Return the order alone, without factors."""
        return in_order(self.index)

    def reciprocal(self) -> Monomial:
        """Return the same order with each factor's reciprocal."""
        return Monomial(self.index, 1.0 / self.scale)


def in_order(index: NDArray[np.int64]) -> Monomial:
    """Return the monomial that takes entries in another order, (n,), without factors."""
    return Monomial(index, np.ones(len(index)))


def identity(size: int) -> Monomial:
    """Return the monomial that changes nothing."""
    return in_order(np.arange(size, dtype=np.int64))


def by_blocks(order: NDArray[np.int64], inside: Sequence[Monomial]) -> Monomial:
    """Return a monomial over equal blocks: new block b is old block order[b], changed inside.

    `inside[b]` acts within the block that becomes block b.
    """
    width = inside[0].size
    index = [order[place] * width + each.index for place, each in enumerate(inside)]
    return Monomial(np.concatenate(index), np.concatenate([each.scale for each in inside]))
