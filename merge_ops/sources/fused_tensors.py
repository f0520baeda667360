"""One tensor cut out of another, and one joined of others: the same numbers in another layout.

Nothing is computed: each element of the result is an element of a part, so that cutting and joining
undo each other bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, RearrangedTensor, Stored, TensorSource
from merge_ops.checkpoints.header import ITEM_SIZES

if TYPE_CHECKING:
    from torch import Tensor

WINDOW = 1 << 20  # elements that are read at once, of a tensor whose rows lie apart


@dataclass(frozen=True)
class Cut(RearrangedTensor):
    """A cut is a part of another tensor: `out[i, j] = own.flat[start + i·down + j·right]`.

    `strides` are (down, right). `size` is (rows, columns), or (rows,): then columns count as one.
    """

    size: tuple[int, ...]
    start: int
    strides: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the part."""
        return self.size

    @property
    def nbytes(self) -> int:
        """Return the bytes of the part."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return where the part lies, and what the whole is made from."""
        where = [list(self.shape), self.start, list(self.strides)]
        return ["cut", *where, self.own.identity(digest_of)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on, out of the whole tensor."""
        import torch

        down, right = self.strides
        width = prod(self.shape[1:])
        if right == 1 and down == width:
            self.own.fill(fetch, self.start + start, into)
            return
        end = start + into.numel()
        first, last = start // width, -(-end // width)
        block = torch.empty((last - first, width), dtype=torch.float32)
        if right == 1:
            for row in range(first, last):
                self.own.fill(fetch, self.start + row * down, block[row - first])
        else:
            self._columns(fetch, first, block)
        into.copy_(block.view(-1)[start - first * width : end - first * width])

    def _columns(self, fetch: Fetch, first: int, block: Tensor) -> None:
        """Rows from `first` on, whose elements lie `strides[1]` apart: several columns a read.

        Where the rows are most of what lies between two columns, all of that is read.
        """
        import torch

        down, right = self.strides
        rows, width = block.shape
        run = (rows - 1) * down + 1  # elements of one column, from its first to its last
        at = self.start + first * down
        together = max(1, WINDOW // right) if 4 * run >= right else 1
        for column in range(0, width, together):
            count = min(together, width - column)
            window = torch.empty((count - 1) * right + run, dtype=torch.float32)
            self.own.fill(fetch, at + column * right, window)
            block[:, column : column + count] = window.as_strided((rows, count), (down, right))


@dataclass(frozen=True)
class Joined:
    """A joined tensor puts matrices of one size side by side, and such pairs below each other.

    `members[e]` are the matrices (rows, width) of layer e of the result, whose rows follow each
    other: those of the first, then those of the second; with `side_by_side` row i is the rows i of
    all in turn, and with `alternating` their elements alternate.
    """

    shape: tuple[int, ...]
    members: tuple[tuple[TensorSource, ...], ...]
    side_by_side: bool = False
    alternating: bool = False

    @property
    def model(self) -> str:
        """Return the name of the model whose tensors these are."""
        return self.members[0][0].model

    @property
    def dtype(self) -> str:
        """Return the dtype code, which all members have."""
        return self.members[0][0].dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes of all members."""
        return sum(each.nbytes for layer in self.members for each in layer)

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of all members."""
        return tuple(part for layer in self.members for each in layer for part in each.parts)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return how the members are joined, and what each is made from."""
        members = [[each.identity(digest_of) for each in layer] for layer in self.members]
        return ["joined", list(self.shape), self.side_by_side, self.alternating, members]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on, out of the members."""
        size = prod(self.shape) // len(self.members)
        end = start + into.numel()
        for number in range(start // size, -(-end // size)):
            low, high = max(start, number * size), min(end, (number + 1) * size)
            target = into[low - start : high - start]
            self._layer(fetch, self.members[number], low - number * size, target)

    def _layer(
        self, fetch: Fetch, members: Sequence[TensorSource], start: int, into: Tensor
    ) -> None:
        """Elements from `start` on of one layer."""
        import torch

        end = start + into.numel()
        if not self.side_by_side:
            size = prod(members[0].shape)
            for number in range(start // size, -(-end // size)):
                low, high = max(start, number * size), min(end, (number + 1) * size)
                members[number].fill(fetch, low - number * size, into[low - start : high - start])
            return
        width = members[0].shape[-1]
        whole = width * len(members)
        first, last = start // whole, -(-end // whole)
        block = torch.empty((last - first, whole), dtype=torch.float32)
        for number, member in enumerate(members):
            rows = torch.empty((last - first, width), dtype=torch.float32)
            member.fill(fetch, first * width, rows.view(-1))
            if self.alternating:
                block[:, number :: len(members)] = rows
            else:
                block[:, number * width : (number + 1) * width] = rows
        into.copy_(block.view(-1)[start - first * whole : end - first * whole])


def turned(own: TensorSource) -> Cut:
    """Return a matrix (a, b) with its axes exchanged, (b, a)."""
    rows, columns = own.shape
    return Cut(own, (columns, rows), 0, (1, columns))
