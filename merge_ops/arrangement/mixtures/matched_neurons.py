"""Neurons of moe_experts in one order, before the moe_experts are averaged (M-SMoE).

A moe_expert stays the same function when its neurons change places: rows of gate and up, columns of
down. So two that do the same may hold it in other orders, and their mean is neither. Here every
member of a group takes the order of the group's first: neurons are matched one to one by the cosine
of their rows of gate, of up and of their columns of down together, each at length 1 (Li et al.
2023, 2310.01334, match before they merge; its code for Mixtral does not).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, RearrangedTensor, Stored, TensorSource
from merge_ops.kernels.linear_algebra import linear_algebra_kind
from merge_ops.symmetries.matching import match_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

VERSION = 1
Matrices = tuple[TensorSource, TensorSource, TensorSource]
"""Gate and up, (intermediate, hidden), and down, (hidden, intermediate), of one moe_expert."""


@dataclass(eq=False)
class NeuronOrder:
    """A neuron order says which neuron of a member stands where one of the first does.

    It is found when it is first asked for, from both moe_experts' weights; under the `lock`, which
    all orders of a mixture share, no more than two moe_experts are held.
    """

    first: Matrices
    member: Matrices
    lock: threading.Lock = field(repr=False)
    _found: NDArray[np.int64] | None = field(default=None, repr=False)

    def index(self, fetch: Fetch) -> NDArray[np.int64]:
        """Return for each neuron of the first that of the member, (intermediate,)."""
        with self.lock:
            if self._found is None:
                ours, theirs = (_neurons(each, fetch) for each in (self.first, self.member))
                self._found = match_rows(ours, theirs).index
            return self._found

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return both moe_experts, and what decides the bits of products here."""
        parts = [each.identity(digest_of) for each in (*self.first, *self.member)]
        return ["neurons matched", VERSION, linear_algebra_kind(), parts]


@dataclass(frozen=True, eq=False)
class OrderedNeurons(RearrangedTensor):
    """Ordered neurons are a member's matrix in the order of the group's first.

    Its rows change places, or for down (`columns`) its columns.
    """

    order: NeuronOrder
    columns: bool

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of all that is read, the matrix's own first."""
        both = (*self.order.first, *self.order.member)
        others = [part for each in both if each is not self.own for part in each.parts]
        return (*self.own.parts, *others)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the matrix, and what its order follows from."""
        return [self.own.identity(digest_of), self.columns, *self.order.identity(digest_of)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        index = self.order.index(fetch)
        for row, first, target in _rows(self.own.shape[1], start, into):
            if self.columns:
                _fill_columns(self.own, fetch, row, index[first : first + target.numel()], target)
            else:
                self.own.fill(fetch, int(index[row]) * self.own.shape[1] + first, target)


def _fill_columns(
    own: TensorSource, fetch: Fetch, row: int, columns: NDArray[np.int64], into: Tensor
) -> None:
    """Some columns of a row, in this order."""
    import torch

    whole = torch.empty(own.shape[1], dtype=torch.float32, device=into.device)
    own.fill(fetch, row * own.shape[1], whole)
    into.copy_(whole[torch.as_tensor(columns, device=into.device)])


def _rows(width: int, start: int, into: Tensor) -> Iterator[tuple[int, int, Tensor]]:
    """The rows that `into` lies in: each with its first column there, and its part of it."""
    at = start
    while at < start + into.numel():
        row, first = divmod(at, width)
        count = min(width - first, start + into.numel() - at)
        yield row, first, into[at - start : at - start + count]
        at += count


def _neurons(matrices: Matrices, fetch: Fetch) -> NDArray[np.float32]:
    """What tells neurons apart, (intermediate, 3 hidden): gate, up and down, each at length 1."""
    gate, up, down = (_values(each, fetch) for each in matrices)
    parts = [_at_length_one(each) for each in (gate, up, np.ascontiguousarray(down.T))]
    return np.concatenate(parts, axis=1)


def _values(source: TensorSource, fetch: Fetch) -> NDArray[np.float32]:
    import torch

    rows, columns = source.shape
    values = torch.empty(rows * columns, dtype=torch.float32)
    source.fill(fetch, 0, values)
    return values.numpy().reshape(rows, columns)


def _at_length_one(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return rows / np.where(lengths > 0, lengths, 1.0)[:, None].astype(np.float32)


@dataclass(frozen=True)
class MatchedNeurons:
    """Matched neurons are the orders of a mixture's moe_experts, each found once.

    `parts` are the names of gate, up and down.
    """

    parts: tuple[str, str, str]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _orders: dict[tuple[str, str], NeuronOrder] = field(
        default_factory=dict[tuple[str, str], NeuronOrder], repr=False
    )

    def ordered(
        self,
        read: Callable[[str], TensorSource],
        names: Mapping[tuple[int, str], str],
        pair: tuple[int, int],
        part: str,
    ) -> TensorSource:
        """Return a part of a pair's second moe_expert with its neurons in the order of the first.

        `names` are those of a layer, which `read` has the tensors of.
        """
        own = read(names[pair[1], part])
        if pair[0] == pair[1]:
            return own
        gate, up, down = self.parts
        key = names[pair[0], gate], names[pair[1], gate]
        if key not in self._orders:
            first, member = (
                (read(names[number, gate]), read(names[number, up]), read(names[number, down]))
                for number in pair
            )
            self._orders[key] = NeuronOrder(first, member, self._lock)
        return OrderedNeurons(own, self._orders[key], part == down)
