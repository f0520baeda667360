"""model_stock: how far to go from the base follows from how the experts differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from merge_ops.gram import GramMeasure, Matrix
from merge_ops.methods.registry import merge_method
from merge_ops.methods.task_arithmetic import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-6


@dataclass(frozen=True)
class ModelStockParameters:
    """None: everything follows from the checkpoints."""


def model_stock_shares(gram: Matrix, parameters: ModelStockParameters) -> list[float]:
    """t / n for each expert, t = n c / (1 + (n − 1) c), c the mean cosine of two experts."""
    count = len(gram)
    norms = [math.sqrt(max(0.0, float(gram[i, i]))) for i in range(count)]
    cosines = [
        min(1.0, max(-1.0, float(gram[i, j]) / max(norms[i] * norms[j], LEAST)))
        for i, j in itertools.combinations(range(count), 2)
    ]
    mean = sum(cosines) / len(cosines)
    divisor = 1 + (count - 1) * mean
    return [mean / divisor if abs(divisor) >= LEAST else 0.0] * count


@merge_method(
    "model_stock",
    parameters=ModelStockParameters,
    inputs="task_vectors",
    span="element",
    family="weighted",
    source="arXiv:2403.19522",
    measure=partial(GramMeasure, shares=model_stock_shares),
    at_least=2,
)
def model_stock(
    deltas: Sequence[Tensor], statistics: list[float], parameters: ModelStockParameters
) -> Tensor:
    """δ = t · mean(δᵢ), t = n c / (1 + (n − 1) c), c the mean cosine between two δ, per tensor.

    Jang et al. 2024, "Model Stock", https://arxiv.org/abs/2403.19522. As in mergekit: cosines are
    averaged, not angles, and where 1 + (n − 1) c is zero the base stays. Of mergekit's parameters
    `filter_wise` is not there yet.
    """
    return weighted_sum(deltas, statistics, False, 1)
