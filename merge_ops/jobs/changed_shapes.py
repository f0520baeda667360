"""The shape of a change: is it one direction, and is it a few rows? Seen in the blocks of one pass.

Of a matrix a part in its first block is taken apart; rows are looked at where each is a token's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.checkpoints.names.tensor_names import is_vocabulary

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 256  # of the part that is taken apart: a few milliseconds
LEAST_SIDE = 16
DEVIATIONS = 10.0  # times the median absolute deviation, above the median, a row's change is odd
FEW_CHANGED = 32  # rows; where no more changed at all, they are odd
MANY_ROWS = 256  # of which a few can be odd
FIRST_ROWS = 10


class ChangedShape:
    """A changed shape takes the blocks of expert − base in order, flat, and holds sums of them."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self._width = shape[-1] if len(shape) == 2 else 0
        self._at = 0
        self.rank_one: float | None = None
        by_token = len(shape) == 2 and is_vocabulary(name) and shape[0] > MANY_ROWS
        self._squares = np.zeros(shape[0]) if by_token else None

    def look(self, delta: NDArray[np.float32]) -> None:
        """Take the next block, shape (n,)."""
        if self._width and self._at == 0:
            self.rank_one = self._share_of_one(delta)
        if self._squares is not None:
            rows = np.arange(self._at, self._at + len(delta)) // self._width
            first = int(rows[0])
            found = np.bincount(rows - first, weights=np.square(delta, dtype=np.float64))
            self._squares[first : first + len(found)] += found
        self._at += len(delta)

    def odd_rows(self) -> list[int]:
        """Return the rows that changed far more than the others, those that changed most first."""
        if self._squares is None or not np.isfinite(self._squares).all():
            return []
        norms = np.sqrt(self._squares)
        changed = np.flatnonzero(norms)
        if 0 < len(changed) <= FEW_CHANGED:
            odd = changed
        else:
            middle = float(np.median(norms[changed])) if len(changed) else 0.0
            deviation = float(np.median(np.abs(norms[changed] - middle))) if len(changed) else 0.0
            bound = middle + DEVIATIONS * deviation if deviation else np.inf
            odd = np.flatnonzero(norms > bound)
        return sorted(odd.tolist(), key=lambda row: (-norms[row], row))

    def _share_of_one(self, delta: NDArray[np.float32]) -> float | None:
        """The largest squared singular value of a part, of the sum of all; None of a small part."""
        rows = min(SIDE, len(delta) // self._width)
        if min(rows, self._width) < LEAST_SIDE:
            return None
        part: Any = delta[: rows * self._width].reshape(rows, self._width)[:, :SIDE]
        if not np.isfinite(part).all():
            return None
        energy = np.square(part, dtype=np.float64).sum()
        if not energy:
            return None
        values = np.linalg.eigvalsh(part.astype(np.float64) @ part.astype(np.float64).T)
        return float(values[-1] / energy)
