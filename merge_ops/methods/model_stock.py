"""model_stock: how far to go from the base follows from how the experts differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.gram import GramMeasure, Matrix
from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.rows import as_rows, row_sums
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import Span, merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values

LEAST = 1e-6  # mergekit's bound of divisors


@dataclass(frozen=True)
class ModelStockParameters:
    """All else follows from the checkpoints."""

    filter_wise: bool = shared("filter_wise", bool, False, "go its own way for each row")


def stock_share(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """t / n = c / (1 + (n − 1) c), c the mean cosine of two experts; Gram matrix (n, n, …) to (…).

    Zero where the divisor is.
    """
    count = len(gram)
    norms = [np.sqrt(np.maximum(0.0, gram[i, i])) for i in range(count)]
    pairs = list(itertools.combinations(range(count), 2))
    total = np.zeros_like(norms[0])
    for i, j in pairs:
        total = total + np.clip(gram[i, j] / np.maximum(norms[i] * norms[j], LEAST), -1.0, 1.0)
    mean = total / len(pairs)
    divisor = 1 + (count - 1) * mean
    singular = np.abs(divisor) < LEAST
    return np.where(singular, 0.0, mean / np.where(singular, 1.0, divisor))


def _shares_of_tensor(gram: Matrix, parameters: ModelStockParameters) -> list[float]:
    return [float(stock_share(gram))] * len(gram)


class StockMeasure(Measure):
    """The experts' shares: of the whole tensor after one round, of rows from the block at hand."""

    def __init__(self, job: TensorJob, parameters: Sequence[ModelStockParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._parameters = parameters
        self._whole = GramMeasure(job, parameters, _shares_of_tensor)
        self.wanted = not all(each.filter_wise for each in parameters)

    def observe(self, block: Block) -> list[Matrix]:
        """Leaf sums of every product."""
        return self._whole.observe(block)

    def absorb(self, observations: Sequence[list[Matrix]]) -> None:
        """Turn the sums into shares."""
        self._whole.absorb(observations)
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[float] | Values:
        """A share for every expert; for rows one, shape (rows, 1), which they have in common."""
        if not self._parameters[coefficient].filter_wise:
            return self._whole.at(block, coefficient)
        rows = [as_rows(each) for each in block.inputs]
        gram = np.empty((len(rows), len(rows), len(rows[0])), dtype=np.float64)
        for i, j in itertools.combinations_with_replacement(range(len(rows)), 2):
            gram[i, j] = gram[j, i] = row_sums(self._arithmetic, rows[i], rows[j])
        return self._arithmetic.from_host(stock_share(gram).astype(np.float32)[:, np.newaxis])


def _span(parameters: ModelStockParameters) -> Span:
    return "row" if parameters.filter_wise else "element"


@merge_method(
    "model_stock",
    parameters=ModelStockParameters,
    sees="task_vectors",
    span="row",
    span_of=_span,
    family="weighted",
    source="arXiv:2403.19522",
    arrays=True,
    measure=StockMeasure,
    at_least=2,
)
def model_stock(
    deltas: Sequence[Values],
    shares: list[float] | Values,
    parameters: ModelStockParameters,
    arithmetic: Arithmetic,
) -> Values | WeightedSum:
    """δ = t · mean(δᵢ), t = n c / (1 + (n − 1) c), c the mean cosine between two δ, per tensor.

    Jang et al. 2024, "Model Stock", https://arxiv.org/abs/2403.19522. As in mergekit: cosines are
    averaged, not angles, and where 1 + (n − 1) c is zero the base stays. With `filter_wise: true`
    every run of the last dimension (a row, in a matrix) has its own t.

    Memory for rows: a block is whole rows, at least one, so a thread holds max(block, row) elements
    of each input.
    """
    if isinstance(shares, list):
        return WeightedSum(deltas, shares)
    rows = [as_rows(delta) for delta in deltas]
    merged = WeightedSum(rows, [1.0] * len(rows)).made(arithmetic)
    merged *= shares
    return merged
