"""The Gram matrix of a tensor's inputs, for methods that are linear combinations of them.

All such a method must know of a tensor are the inner products of its inputs; what comes out are one
share for each input, so any number of coefficients costs one measuring pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from merge_ops.errors import NoDirectionError
from merge_ops.measures.measure import LEAF, Block, Measure, TensorJob, total

Matrix = NDArray[np.float64]
Shares = Callable[[Matrix, Any], list[float]]


class GramMeasure(Measure):
    """Inner products ⟨xᵢ, xⱼ⟩ in float64, shape (n, n): one round.

    `shares` is the method's own: from the matrix and its parameters to one share for each input.
    `at` gives those shares.
    """

    def __init__(self, job: TensorJob, parameters: Sequence[Any], shares: Shares) -> None:
        self._arithmetic = job.arithmetic
        self._parameters = parameters
        self._of = shares
        self._tensor = job.tensor
        self._size = len(job.inputs)
        self._pairs = [(i, j) for i in range(self._size) for j in range(i, self._size)]
        self._shares: list[list[float]] = []
        self.wanted = True

    def observe(self, block: Block) -> list[Matrix]:
        """Leaf sums of every product."""
        flat = [values.reshape(-1) for values in block.inputs]
        return [self._arithmetic.leaf_sums(flat[i], flat[j], LEAF) for i, j in self._pairs]

    def absorb(self, observations: Sequence[list[Matrix]]) -> None:
        """Put the matrix together and turn it into shares."""
        gram = np.empty((self._size, self._size), dtype=np.float64)
        for position, (i, j) in enumerate(self._pairs):
            gram[i, j] = gram[j, i] = total([seen[position] for seen in observations])
        try:
            self._shares = [self._of(gram, each) for each in self._parameters]
        except NoDirectionError as error:
            raise NoDirectionError(f"tensor '{self._tensor}': {error}") from None
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[float]:
        """The same shares for every block."""
        return self._shares[coefficient]


def inner(first: Matrix, second: Matrix) -> float:
    """Σ aᵢ bᵢ of two vectors, shape (n,): products are rounded, their sum is rounded once.

    Unlike a product by BLAS, whose order of addition follows from the processor.
    """
    return math.fsum((first * second).tolist())


def times(matrix: Matrix, vector: Matrix) -> Matrix:
    """The matrix, shape (m, n), times the vector, shape (n,), each entry as `inner`."""
    return np.array([inner(row, vector) for row in matrix], dtype=np.float64)
