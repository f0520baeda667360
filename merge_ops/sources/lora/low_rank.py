"""W + scale · B A, computed while it is read: what a LoRA adapter makes of a weight.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685. The product
is taken over tiles of rows that depend on the tensor's shape alone: a block that starts in the
middle of a tile computes the whole tile. A BLAS kernel picks its order of additions by the shapes
it is given, so it must never be given one that depends on the block.

Memory, for each thread, beside the block: one tile (`TILE_ELEMENTS` float32 values, or one row
where that is longer), the rows of one factor that belong to the block (no more than the block, as
long as the rank is no larger than a row), and the other factors of the tensors read last
(`CACHE_BYTES`, or one factor where that is larger).
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, Stored, TensorSource
from merge_ops.kernels.linear_algebra import linear_algebra_kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TILE_ROWS = 32
TILE_ELEMENTS = 1 << 17
CACHE_BYTES = 16 << 20


class AddedTensor(ABC):
    """An added tensor is `target` with a change made of `added`, in its dtype and shape."""

    target: TensorSource

    @property
    @abstractmethod
    def added(self) -> tuple[Stored, ...]:
        """Return the stored tensors that the change is made of."""

    @property
    def dtype(self) -> str:
        """Return the dtype code of the target."""
        return self.target.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the target."""
        return self.target.shape

    @property
    def nbytes(self) -> int:
        """Return the bytes of the target and of what is added."""
        return self.target.nbytes + sum(each.nbytes for each in self.added)

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of the target, then those that are added."""
        return (*self.target.parts, *self.added)


@dataclass(frozen=True)
class LowRank(AddedTensor):
    """A low-rank source is target + scale · up @ down, up [out, r] and down [r, in].

    A convolution [out, in, height, width] has down [r, in, height, width] and up [out, r, 1, 1]: in
    memory they are the matrices [r, in · height · width] and [out, r].

    `transposed` is for weights kept as [in, out]: embeddings and Conv1D layers, to which the
    product is added as down^T up^T. It is computed in float32; `dtype` is the target's.
    """

    model: str
    target: TensorSource
    up: Stored
    down: Stored
    scale: float
    transposed: bool

    @property
    def added(self) -> tuple[Stored, ...]:
        """Return both factors."""
        return self.up, self.down

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the tensors, the scale, the orientation and the kind of linear algebra."""
        factors = [self.up.identity(digest_of), self.down.identity(digest_of)]
        numbers = [self.scale, self.transposed, linear_algebra_kind()]
        return ["low rank", self.target.identity(digest_of), factors, *numbers]

    @property
    def matrix(self) -> tuple[int, int]:
        """Return the shape of the target as a matrix: rows, and all other axes as columns."""
        return self.shape[0], prod(self.shape[1:])

    @property
    def rank(self) -> int:
        """Return the rank r."""
        return self.down.shape[0]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the target's elements from `start`, plus the product's.

        The product is computed tile by tile.
        """
        import torch

        self.target.fill(fetch, start, into)
        end = start + into.numel()
        rows, columns = self.matrix
        if not into.numel():
            return
        height = max(1, min(TILE_ROWS, TILE_ELEMENTS // columns))
        first = start // (height * columns) * height
        last = min(rows, -(-end // (height * columns)) * height)
        left = self._left(fetch, first, last - first)
        right = _cached(self, fetch, into.device)
        tile = torch.empty(height, columns, dtype=torch.float32, device=into.device)
        for row in range(first, last, height):
            # The copy has an address of its own, which the allocator aligns: kernels look at that.
            part = left[row - first : row - first + height].clone()
            product = torch.mm(part, right, out=tile[: len(part)]).mul_(self.scale).view(-1)
            at = row * columns
            low, high = max(start, at), min(end, at + len(product))
            into[low - start : high - start].add_(product[low - at : high - at])

    def _left(self, fetch: Fetch, row: int, count: int) -> Tensor:
        """`count` rows of the left factor, [count, r]."""
        import torch

        if not self.transposed:
            return fetch(self.up, row * self.rank, count * self.rank).view(count, self.rank)
        rows = self.shape[0]
        runs = [fetch(self.down, each * rows + row, count) for each in range(self.rank)]
        return torch.stack(runs, dim=1)

    def right(self, fetch: Fetch) -> Tensor:
        """Return the whole right factor, [r, columns], contiguous."""
        if not self.transposed:
            columns = self.matrix[1]
            return fetch(self.down, 0, self.rank * columns).view(self.rank, columns)
        columns = self.matrix[1]
        whole = fetch(self.up, 0, columns * self.rank).view(columns, self.rank)
        return whole.t().contiguous()


@dataclass(frozen=True)
class ScaledSum(AddedTensor):
    """A scaled sum is target + scale · change, element by element.

    It is the bias that `lora_bias` trains.
    """

    model: str
    target: TensorSource
    change: Stored
    scale: float

    @property
    def added(self) -> tuple[Stored, ...]:
        """Return the change."""
        return (self.change,)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the tensors and the scale."""
        parts = [each.identity(digest_of) for each in (self.target, self.change)]
        return ["scaled sum", *parts, self.scale]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the target's elements from `start`, plus the scaled change."""
        self.target.fill(fetch, start, into)
        into.add_(fetch(self.change, start, into.numel()).mul(self.scale))


_local = threading.local()


def _cached(source: LowRank, fetch: Fetch, device: torch.device) -> Tensor:
    """The right factor, from this thread's memory of those it used last."""
    factors: OrderedDict[tuple[int, str], tuple[LowRank, Tensor]] | None
    factors = getattr(_local, "kept", None)
    if factors is None:
        factors = OrderedDict[tuple[int, str], tuple[LowRank, "Tensor"]]()
        _local.kept = factors
    key = (id(source), str(device))
    cached = factors.pop(key, None)
    right = cached[1] if cached is not None and cached[0] is source else source.right(fetch)
    factors[key] = (source, right)
    while len(factors) > 1 and sum(each.nbytes for _, each in factors.values()) > CACHE_BYTES:
        factors.popitem(last=False)
    return right
