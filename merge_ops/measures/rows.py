"""Rows of tensors: views, sums and ranks that do not depend on which rows share a block.

A row is a run of the last dimension; a tensor of one dimension or none is one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.kernels import loops as kernels
from merge_ops.kernels import mask_loops as kernels_masks
from merge_ops.kernels.values import empty_like
from merge_ops.measures.measure import LANES, LEAF

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_INDEX_BITS = 32


def row_length(shape: Sequence[int]) -> int:
    """Elements of a row, at least one."""
    return max(1, shape[-1]) if shape else 1


def rows_between(shape: Sequence[int]) -> int:
    """How many rows further the next index of the first dimension begins: one for a matrix."""
    return max(1, prod(shape[1:-1]))


def as_rows(values: Tensor) -> Tensor:
    """The same values with shape (rows, row length)."""
    return values.reshape(-1, row_length(values.shape))


def row_groups(rows: int, length: int) -> Iterator[slice]:
    """Consecutive rows of about 65,536 elements together: what works on them stays in cache."""
    step = max(1, LEAF // length)
    return (slice(start, start + step) for start in range(0, rows, step))


def row_sums(values: Tensor) -> NDArray[np.float64]:
    """The sum of every row in float64, shape (rows,).

    On the CPU torch adds up each row by itself. On a GPU its order follows from the number of rows,
    so there halves are added until one column is left.
    """
    import torch

    if values.device.type == "cpu":
        sums = [
            values[group].sum(dim=1, dtype=torch.float64)
            for group in row_groups(values.shape[0], values.shape[1])
        ]
        return torch.cat(sums).numpy()
    return _sums_by_halves(values).cpu().numpy()


def absolute_row_sums(values: Tensor) -> NDArray[np.float64]:
    """The sum of the magnitudes of every row in float64, shape (rows,), with `leaf_sums`' order.

    A row is what a leaf is there. The same bits on every device.
    """
    sums = kernels.leaf_sums(values, None, values.shape[1])
    if sums is not None:
        return sums
    import torch

    lanes = torch.zeros(values.shape[0], LANES, dtype=torch.float64, device=values.device)
    for part in torch.split(values.abs(), LANES, dim=1):
        lanes[:, : part.shape[1]].add_(part)
    while lanes.shape[1] > 1:
        lower, upper = lanes.chunk(2, dim=1)
        lanes = lower + upper
    return lanes[:, 0].cpu().numpy()


def _sums_by_halves(values: Tensor) -> Tensor:
    halves = values.double()
    while (length := halves.shape[1]) > 1:
        half = (length + 1) // 2
        first, second = halves[:, :half].clone(), halves[:, half:]
        first[:, : length - half].add_(second)
        halves = first
    return halves[:, 0]


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


def row_ranks(values: Tensor) -> Tensor:
    """By magnitude: 0 for the smallest of its row to n − 1 for the largest; equals in index order.

    Shape (rows, n), float32 to int32. On the CPU the bits of a value and its index
    make one integer, and sorting integers is twice as fast as a stable argsort.
    """
    ranks = empty_like(values, "int32")
    if kernels_masks.row_ranks(values, ranks):
        return ranks
    import torch

    magnitude = values.abs()
    rows, length = magnitude.shape
    places = torch.arange(length, dtype=torch.int32, device=magnitude.device)
    if magnitude.device.type != "cpu":
        order = torch.argsort(magnitude, dim=1, stable=True)
        return ranks.scatter_(1, order, places.expand(order.shape))
    index = np.arange(length, dtype=np.uint64)
    for group in row_groups(rows, length):
        keys = magnitude[group].numpy().view(np.uint32).astype(np.uint64)
        keys = (keys << np.uint64(_INDEX_BITS)) | index
        keys.sort(axis=1)
        keys &= np.uint64((1 << _INDEX_BITS) - 1)
        order = torch.as_tensor(keys.view(np.int64))
        ranks[group].scatter_(1, order, places.expand(order.shape))
    return ranks
