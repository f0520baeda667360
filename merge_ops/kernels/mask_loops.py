"""The loops in C of random masks; what kernels.py says holds for these too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from merge_ops.kernels.loops import loops_for
from merge_ops.kernels.values import address, count_of, empty_like

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def keep(key: tuple[int, int], start: int, values: Tensor, threshold: int) -> Tensor | None:
    """`values` times their random mask (see randomness.py)."""
    loops = loops_for(values)
    if loops is None:
        return None
    kept = empty_like(values)
    loops.keep(*key, start, count_of(values), threshold, address(values), address(kept))
    return kept


def row_ranks(values: Tensor, ranks: Tensor) -> bool:
    """Fills `ranks` (int32) with the rank of every |value| in its row; shapes (rows, n)."""
    loops = loops_for(values)
    if loops is None:
        return False
    if not loops.row_ranks(address(values), *values.shape, address(ranks)):
        raise MemoryError
    return True


def decide_by_rank(
    key: tuple[int, int], start: int, values: Tensor, thresholds: NDArray[np.uint32]
) -> NDArray[np.uint8] | None:
    """One bit for each entry of rows (rows, n): (rows, ⌈n / 8⌉); see rank_masks.py."""
    loops = loops_for(values)
    if loops is None:
        return None
    rows, length = values.shape
    decided = np.empty((rows, -(-length // 8)), dtype=np.uint8)
    done = loops.decide_by_rank(
        *key, start, address(values), rows, length, address(thresholds), address(decided)
    )
    if not done:
        raise MemoryError
    return decided


def apply_decided(values: Tensor, decided: NDArray[np.uint8], factor: float) -> Tensor | None:
    """`values`, shape (rows, n), times what `decide_by_rank` decided, times the factor."""
    loops = loops_for(values)
    if loops is None:
        return None
    kept = empty_like(values)
    loops.apply_decided(address(values), address(decided), *values.shape, factor, address(kept))
    return kept


def decided_sums(values: Tensor, decided: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Σ |values · decided| of every row, shape (rows,), in the order of `leaf_sums`."""
    loops = loops_for(values)
    if loops is None:
        return None
    sums = np.empty(values.shape[0], dtype=np.float64)
    loops.decided_sums(address(values), address(decided), *values.shape, address(sums))
    return sums
