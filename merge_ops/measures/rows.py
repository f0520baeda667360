"""Rows of tensors: views and sums that do not depend on which rows share a block.

A row is a run of the last dimension; a tensor of one dimension or none is one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.kernels.arithmetic import Arithmetic
from merge_ops.measures.measure import LEAF

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Values


def row_length(shape: Sequence[int]) -> int:
    """Elements of a row, at least one."""
    return max(1, shape[-1]) if shape else 1


def rows_between(shape: Sequence[int]) -> int:
    """How many rows further the next index of the first dimension begins: one for a matrix."""
    return max(1, prod(shape[1:-1]))


def as_rows(values: Values) -> Values:
    """The same values with shape (rows, row length)."""
    return values.reshape(-1, row_length(values.shape))


def row_groups(rows: int, length: int) -> Iterator[slice]:
    """Consecutive rows of about 65,536 elements together: what works on them stays in cache."""
    step = max(1, LEAF // length)
    return (slice(start, start + step) for start in range(0, rows, step))


def row_sums(
    arithmetic: Arithmetic, values: Values, other: Values | None = None
) -> NDArray[np.float64]:
    """Σ values · other, or Σ |values|, of every row, (rows, n) to (rows,): a row is a leaf."""
    return arithmetic.leaf_sums(values, other, values.shape[1])


def column_sums(values: Tensor) -> Tensor:
    """Sums over the rows in float64, shape (..., rows, columns) to (..., 1, columns).

    Neighbours are added, then pairs of neighbours, and so on. The sums of runs of 2ᵏ rows are the
    k-th stage of that whatever k is, so sums of such runs, the last of which may be shorter, added
    in the same way give the same bits as all rows at once.
    """
    import torch

    width = max(16, LEAF // values.shape[-2])  # columns that stay in cache together
    return torch.cat([_sums_by_pairs(part) for part in torch.split(values, width, dim=-1)], dim=-1)


def _sums_by_pairs(values: Tensor) -> Tensor:
    import torch

    sums = values.double()
    while (rows := sums.shape[-2]) > 1:
        pairs = sums[..., 0 : rows - 1 : 2, :] + sums[..., 1::2, :]
        sums = torch.cat((pairs, sums[..., -1:, :]), dim=-2) if rows % 2 else pairs
    return sums
