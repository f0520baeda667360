"""Some rows of a tensor that change, where a checkpoint keeps several weights in one.

OpenCLIP, for example, keeps the weights of query, key and value one below the other, and an adapter
changes each by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, RearrangedTensor, Stored, TensorSource

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class RowRange(RearrangedTensor):
    """A row range is rows [first, first + count) of a whole tensor `own` [rows, …]."""

    first: int
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the range."""
        return (self.count, *self.own.shape[1:])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the range's share of the whole tensor."""
        return self.own.nbytes * self.count // max(1, self.own.shape[0])

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the whole tensor and the range."""
        return ["rows", self.own.identity(digest_of), self.first, self.count]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Write elements [start, start + n) of the range to `into`, flat float32 of n elements."""
        self.own.fill(fetch, self.first * prod(self.own.shape[1:]) + start, into)


@dataclass(frozen=True)
class WithRows:
    """A tensor [rows, …] of which rows from `first` on are those of another source."""

    whole: TensorSource
    first: int
    rows: TensorSource

    @property
    def model(self) -> str:
        """Return the name of the model that changed the rows."""
        return self.rows.model

    @property
    def dtype(self) -> str:
        """Return the dtype code of the whole tensor."""
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the whole tensor."""
        return self.whole.shape

    @property
    def nbytes(self) -> int:
        """Return the bytes of the whole tensor and of what changes the rows."""
        changing = self.rows.nbytes - RowRange(self.whole, self.first, self.rows.shape[0]).nbytes
        return self.whole.nbytes + max(0, changing)

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of both."""
        return tuple(dict.fromkeys((*self.whole.parts, *self.rows.parts)))

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return both tensors and the first row."""
        return [
            "with rows",
            self.whole.identity(digest_of),
            self.first,
            self.rows.identity(digest_of),
        ]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Write elements [start, start + n) to `into`, flat float32 of n elements."""
        width, end = prod(self.whole.shape[1:]), start + into.numel()
        low, high = self.first * width, (self.first + self.rows.shape[0]) * width
        edges = sorted({start, end, *(edge for edge in (low, high) if start < edge < end)})
        for begin, stop in pairwise(edges):
            part = into[begin - start : stop - start]
            if low <= begin < high:
                self.rows.fill(fetch, begin - low, part)
            else:
                self.whole.fill(fetch, begin, part)
