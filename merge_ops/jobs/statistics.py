"""What task vectors look like, and how they get on with each other: plain numbers for people.

Blocks of bounded size are read, sums are taken in float64, and nothing is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.name_alignment import named_alike
from merge_ops.jobs.changed_shapes import FIRST_ROWS, ChangedShape
from merge_ops.jobs.task_vectors import delta_blocks, float_tensors
from merge_ops.kernels.cores import on_one_thread
from merge_ops.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MOST_LAYERED = 8
"""Experts of a set whose cosines are told by layer: their number grows with the square."""


@dataclass(frozen=True)
class TensorChange:
    """A tensor change says how far one tensor moved from the base.

    It holds L2 norms, the largest |δ|, and how many entries changed at all. `relative_norm` is
    infinite where a tensor of zeros changed. Of a matrix `rank_one` is the share of the energy of a
    part of it that lies in one direction; of a tensor with a row for each token `odd_rows` counts
    rows that changed far more than the others, and the first of them are named.
    """

    name: str
    layer: int | None
    n: int
    norm: float
    relative_norm: float
    max_abs: float
    changed: int
    rank_one: float | None = None
    odd_rows: int = 0
    first_odd_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class TaskVectorStatistics:
    """Task-vector statistics describe a task vector, tensor by tensor."""

    base: str
    expert: str
    tensors: tuple[TensorChange, ...]

    @property
    def norm(self) -> float:
        """Return the L2 norm of the whole task vector."""
        return math.sqrt(sum(tensor.norm**2 for tensor in self.tensors))

    @property
    def changed_share(self) -> float:
        """Return the share of all entries that differ from the base."""
        total = sum(tensor.n for tensor in self.tensors)
        return sum(tensor.changed for tensor in self.tensors) / max(1, total)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as plain data."""
        whole = {"norm": self.norm, "changed_share": self.changed_share}
        return {**dataclasses.asdict(self), **whole}


@dataclass(frozen=True)
class Interference:
    """Interference says how the task vectors of one expert set relate.

    `cosine[i][j]` is the cosine between two whole task vectors. `sign_conflict[i][j]` looks at the
    entries where both changed: it is the share of them that changed in opposite directions.
    `by_layer` has, for sets of at most MOST_LAYERED, the cosines within each layer: pairs of a
    layer's number, None for what is in no layer, and a matrix as `cosine`.
    """

    names: tuple[str, ...]
    cosine: tuple[tuple[float, ...], ...]
    sign_conflict: tuple[tuple[float, ...], ...]
    norms: tuple[float, ...]
    by_layer: tuple[tuple[int | None, tuple[tuple[float, ...], ...]], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the interference as plain data."""
        return dataclasses.asdict(self)


@on_one_thread
def task_vector_statistics(
    base: Checkpoint, expert: Checkpoint, progress: Progress | None = None
) -> TaskVectorStatistics:
    """Return norms, extremes and counts of expert − base for every float tensor.

    Raises CompatibilityError where the expert lacks one of these tensors.
    """
    (expert,) = named_alike(base, [expert])
    changes: list[TensorChange] = []
    names = float_tensors(base, (expert,))
    whole, done = sum(base.tensors[name].count for name in names), 0
    for name in names:
        square, base_square, largest, changed = 0.0, 0.0, 0.0, 0
        shape = ChangedShape(name, base.tensors[name].shape)
        for origin, (delta,) in delta_blocks(base, (expert,), name):
            shape.look(cast("NDArray[np.float32]", delta.numpy()))
            square += _dot(delta, delta)
            base_square += _dot(origin, origin)
            largest = max(largest, float(delta.abs().max()))
            changed += int(np.count_nonzero(cast("NDArray[np.float32]", delta.numpy())))
        count = base.tensors[name].count
        layer = layer_of(name)
        norm = math.sqrt(square)
        unlike_zero = math.inf if norm else 0.0
        relative = norm / math.sqrt(base_square) if base_square else unlike_zero
        place = layer[1] if layer else None
        odd = shape.odd_rows()
        told = (shape.rank_one, len(odd), tuple(odd[:FIRST_ROWS]))
        changes.append(TensorChange(name, place, count, norm, relative, largest, changed, *told))
        done += count
        if progress:
            progress(done, whole)
    return TaskVectorStatistics(base.name, expert.name, tuple(changes))


@on_one_thread
def interference(
    base: Checkpoint, experts: Sequence[Checkpoint], progress: Progress | None = None
) -> Interference:
    """Return cosines and sign conflicts between the experts' task vectors.

    They are taken over all float tensors. Raises CompatibilityError where an expert lacks one of
    them.
    """
    experts = named_alike(base, experts)
    size = len(experts)
    gram = np.zeros((size, size))
    both = np.zeros((size, size))
    opposed = np.zeros((size, size))
    layers: dict[int | None, NDArray[np.float64]] = {}
    names = float_tensors(base, experts)
    whole, done = sum(base.tensors[name].count for name in names), 0
    for name in names:
        layer = layer_of(name)
        place = layer[1] if layer else None
        own = layers.setdefault(place, np.zeros((size, size))) if size <= MOST_LAYERED else gram
        for _, deltas in delta_blocks(base, experts, name):
            signs = [delta.sign() for delta in deltas]
            for i in range(size):
                _add(_dot(deltas[i], deltas[i]), (i, i), gram, own)
                for j in range(i):
                    _add(_dot(deltas[i], deltas[j]), (i, j), gram, own)
                    product = signs[i] * signs[j]
                    both[i, j] += _dot(product, product)
                    opposed[i, j] += float((product < 0).sum())
        done += base.tensors[name].count
        if progress:
            progress(done, whole)
    order = sorted(layers, key=lambda layer: (layer is None, layer or 0))
    return dataclasses.replace(
        _interference(tuple(each.name for each in experts), gram, both, opposed),
        by_layer=tuple((layer, _rows(_cosines(layers[layer]))) for layer in order),
    )


def _add(
    value: float, at: tuple[int, int], gram: NDArray[np.float64], own: NDArray[np.float64]
) -> None:
    """Add a product to the sum over all tensors, and to that of its own layer."""
    gram[at] += value
    if own is not gram:
        own[at] += value


def _cosines(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosines from the lower triangle of products; 0 where a vector is zero."""
    norms = np.sqrt(np.diag(gram))
    lengths = np.outer(norms, norms)
    full = gram + np.tril(gram, -1).T
    return np.divide(full, lengths, out=np.zeros_like(full), where=lengths > 0)


def _rows(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _interference(
    names: tuple[str, ...],
    gram: NDArray[np.float64],
    both: NDArray[np.float64],
    opposed: NDArray[np.float64],
) -> Interference:
    norms = np.sqrt(np.diag(gram))
    conflict = np.divide(opposed, both, out=np.zeros_like(both), where=both > 0)
    conflict = conflict + conflict.T
    return Interference(
        names,
        _rows(_cosines(gram)),
        _rows(conflict),
        tuple(float(value) for value in norms),
    )


def _dot(first: Tensor, second: Tensor) -> float:
    import torch

    return float((first * second).sum(dtype=torch.float64))
