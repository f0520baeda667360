"""The part of Loops that draws random masks, ranks rows, and has exp, log and tanh.

That is kernels_masks.c and kernels_elementary.c.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.kernels.arithmetic import Arithmetic, Key

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Values

    Floats = NDArray[np.float32]


def array_of(values: Values) -> Floats:
    """Values on the CPU as a contiguous array of the same shape; what is one is not copied."""
    return np.ascontiguousarray(values, dtype=np.float32)


def address(array: NDArray[Any] | None) -> int | None:
    """The result is where the first element of an array, of any shape, lies in memory.

    The array must outlive the call in C.
    """
    return None if array is None else array.ctypes.data


class MaskLoops(Arithmetic):
    """Masks and ranks by the loops of a library; what `Loops` builds on."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def exponential(self, numbers: Tensor) -> Tensor:
        """eˣ takes the place of every x. Shapes as in `Arithmetic.exponential`."""
        self._library.exponential(numbers.data_ptr(), numbers.numel())
        return numbers

    def logarithm(self, numbers: Tensor) -> Tensor:
        """ln x takes the place of every x. Shapes as in `Arithmetic.logarithm`."""
        self._library.logarithm(numbers.data_ptr(), numbers.numel())
        return numbers

    def hyperbolic_tangent(self, numbers: Tensor) -> Tensor:
        """tanh x takes the place of every x. Shapes as in `Arithmetic.hyperbolic_tangent`."""
        self._library.hyperbolic_tangent(numbers.data_ptr(), numbers.numel())
        return numbers

    def keep_random(self, key: Key, start: int, values: Values, threshold: int) -> Floats:
        """The random mask multiplies `values`. Shapes as in `Arithmetic.keep_random`."""
        array = array_of(values)
        kept = np.empty(array.shape, dtype=np.float32)
        self._library.keep(*key, start, array.size, threshold, address(array), address(kept))
        return kept

    def by_rank(self, table: Floats, values: Values) -> Floats:
        """The table says what each entry gets for its rank in its row. Raises MemoryError.

        Shapes as in `Arithmetic.by_rank`.
        """
        array = array_of(values)
        ranks = np.empty(array.shape, dtype=np.int32)
        if not self._library.row_ranks(address(array), *array.shape, address(ranks)):
            raise MemoryError
        return table[ranks]

    def decide_by_rank(
        self, key: Key, start: int, values: Values, thresholds: NDArray[np.uint32]
    ) -> NDArray[np.uint8]:
        """Each entry gets one bit, most of them without ranks. Raises MemoryError.

        Shapes as in `Arithmetic.decide_by_rank`.
        """
        array = array_of(values)
        rows, length = array.shape
        decided = np.empty((rows, -(-length // 8)), dtype=np.uint8)
        done = self._library.decide_by_rank(
            *key, start, address(array), rows, length, address(thresholds), address(decided)
        )
        if not done:
            raise MemoryError
        return decided

    def apply_decided(self, values: Values, decided: Any, factor: float) -> Floats:
        """`values`, shape (rows, n), times what was decided, times the factor: new values."""
        array = array_of(values)
        kept = np.empty(array.shape, dtype=np.float32)
        self._library.apply_decided(
            address(array), address(decided), *array.shape, factor, address(kept)
        )
        return kept

    def decided_sums(self, values: Values, decided: Any) -> NDArray[np.float64]:
        """The result is Σ |values · decided| of every row, (rows, n) to (rows,)."""
        array = array_of(values)
        sums = np.empty(array.shape[0], dtype=np.float64)
        self._library.decided_sums(address(array), address(decided), *array.shape, address(sums))
        return sums
