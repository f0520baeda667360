"""A vocabulary tensor with its rows in another order, row by row from one model or another."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, RearrangedTensor, Stored, TensorSource
from merge_ops.checkpoints.header import ITEM_SIZES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

ZERO, AVERAGE, MEAN = -1, -2, -3
"""Instead of a model: zeros; the average of some rows; the mean of all rows that are no MEAN."""
LEAF = 1 << 16


@dataclass(frozen=True, eq=False)
class RowMap:
    """A row map says for each output row which row of which model it takes.

    `origin` holds the model's position, or ZERO, AVERAGE or MEAN, and `row` the row there.
    `averages` lists the (model, row) pairs of the AVERAGE rows.
    """

    origin: NDArray[np.int32]
    row: NDArray[np.int32]
    averages: Mapping[int, Sequence[tuple[int, int]]]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Return the first row of each run that one read fetches, and then the number of rows."""
        same = self.origin[1:] == self.origin[:-1]
        follows = (self.row[1:] == self.row[:-1] + 1) & (self.origin[1:] >= 0)
        filled = (self.origin[1:] == ZERO) | (self.origin[1:] == MEAN)
        breaks = np.flatnonzero(~(same & (follows | filled))) + 1
        return np.concatenate([[0], breaks, [len(self.origin)]]).astype(np.int64)

    @cached_property
    def digest(self) -> str:
        """Return a digest that covers every number in the map."""
        table = sorted((row, tuple(pairs)) for row, pairs in self.averages.items())
        content = self.origin.astype("<i4").tobytes() + self.row.astype("<i4").tobytes()
        return blake3.blake3(content + repr(table).encode()).hexdigest()

    def is_identity(self, model: int, rows: int) -> bool:
        """Return whether the map gives `model`'s tensor of `rows` rows as it is."""
        return (
            len(self.row) == rows
            and bool((self.origin == model).all())
            and bool((self.row == np.arange(rows)).all())
        )


@dataclass(frozen=True, eq=False)
class GatheredRows(RearrangedTensor):
    """Gathered rows bring `own`, one model's tensor, to the merged vocabulary.

    `donors` are all models' tensors, by the positions that the map uses. Rows stay where they are
    until they are read; a run of rows that lie together is one read.
    """

    donors: tuple[TensorSource, ...]
    rows: RowMap
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _mean: list[Tensor] = field(default_factory=list["Tensor"], repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape: the rows of the merged vocabulary, then the model's own sizes."""
        return (len(self.rows.row), *self.own.shape[1:])

    @property
    def nbytes(self) -> int:
        """Return the bytes of its rows."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of the model's own tensor, then those of the others."""
        others = [part for each in self.donors if each is not self.own for part in each.parts]
        return (*self.own.parts, *others)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the digest of the map, and all tensors that it may take rows from."""
        return ["rows", self.rows.digest, [each.identity(digest_of) for each in self.donors]]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on, gathered from their rows."""
        end, width = start + into.numel(), prod(self.shape[1:])
        for first, last in self._runs(start // width, -(-end // width)):
            begin, stop = max(start, first * width), min(end, last * width)
            target = into[begin - start : stop - start]
            origin = int(self.rows.origin[first])
            if origin >= 0:
                skipped = begin - first * width
                at = int(self.rows.row[first]) * width + skipped
                self.donors[origin].fill(fetch, at, target)
            elif origin == ZERO:
                target.zero_()
            elif origin == AVERAGE:
                self._average(fetch, first, begin - first * width, target)
            else:
                self._fill_mean(fetch, begin, width, target)

    def _runs(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The runs that rows [first, last) lie in."""
        starts = self.rows.starts
        number = int(np.searchsorted(starts, first, side="right")) - 1
        while number + 1 < len(starts) and starts[number] < last:
            yield int(starts[number]), int(starts[number + 1])
            number += 1

    def _average(self, fetch: Fetch, row: int, skipped: int, into: Tensor) -> None:
        import torch

        pairs = self.rows.averages[row]
        width = prod(self.shape[1:])
        into.zero_()
        part = torch.empty_like(into)
        for donor, at in pairs:
            self.donors[donor].fill(fetch, at * width + skipped, part)
            into.add_(part)
        into.div_(len(pairs))

    def _fill_mean(self, fetch: Fetch, start: int, width: int, into: Tensor) -> None:
        with self._lock:
            if not self._mean:
                self._mean.append(self._mean_row(fetch, width, into))
        mean = self._mean[0].to(into.device)
        done = 0
        while done < into.numel():
            column = (start + done) % width
            count = min(width - column, into.numel() - done)
            into[done : done + count] = mean[column : column + count]
            done += count

    def _mean_row(self, fetch: Fetch, width: int, like: Tensor) -> Tensor:
        """Mean of all other rows, summed in float64 over fixed leaves: the same for any block."""
        import torch

        total, count = np.zeros(width), 0
        others = np.concatenate([[False], self.rows.origin != MEAN, [False]])
        edges, step = np.flatnonzero(others[1:] != others[:-1]).tolist(), max(1, LEAF // width)
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            for row in range(first, last, step):
                rows = min(step, last - row)
                values = torch.empty(rows * width, dtype=torch.float32, device=like.device)
                self.fill(fetch, row * width, values)
                block: NDArray[np.float32] = values.cpu().numpy()
                total += block.reshape(rows, width).sum(axis=0, dtype=np.float64)
                count += rows
        return torch.tensor(total / max(1, count), dtype=torch.float32)
