"""What task vectors look like, and how they get on with each other: plain numbers for people.

Blocks of bounded size are read, sums are taken in float64, and nothing is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.block_reader import fetch_stored
from merge_ops.checkpoint import Checkpoint
from merge_ops.compatibility import differing_vocabulary, excluded, find_source, is_vocabulary
from merge_ops.depth import layer_of
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.header import FLOAT_DTYPES
from merge_ops.layout import natural_key

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

BLOCK = 1 << 18
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TensorChange:
    """How far one tensor moved: L2 norms, the largest |δ|, and how many entries changed at all."""

    name: str
    layer: int | None
    n: int
    norm: float
    relative_norm: float
    max_abs: float
    changed: int


@dataclass(frozen=True)
class TaskVectorStatistics:
    """A task vector, tensor by tensor."""

    base: str
    expert: str
    tensors: tuple[TensorChange, ...]

    @property
    def norm(self) -> float:
        """L2 norm of the whole task vector."""
        return math.sqrt(sum(tensor.norm**2 for tensor in self.tensors))

    @property
    def changed_share(self) -> float:
        """Share of all entries that differ from the base."""
        total = sum(tensor.n for tensor in self.tensors)
        return sum(tensor.changed for tensor in self.tensors) / max(1, total)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        whole = {"norm": self.norm, "changed_share": self.changed_share}
        return {**dataclasses.asdict(self), **whole}


@dataclass(frozen=True)
class Interference:
    """How the task vectors of one expert set relate.

    `cosine[i][j]` is the cosine between the whole task vectors; `sign_conflict[i][j]` the share of
    entries where both changed and in opposite directions, among those where both changed.
    """

    names: tuple[str, ...]
    cosine: tuple[tuple[float, ...], ...]
    sign_conflict: tuple[tuple[float, ...], ...]
    norms: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def task_vector_statistics(
    base: Checkpoint, expert: Checkpoint, progress: Progress | None = None
) -> TaskVectorStatistics:
    """Norms, extremes and counts of expert − base for every float tensor."""
    changes: list[TensorChange] = []
    names = _float_tensors(base, (expert,))
    whole, done = sum(base.tensors[name].count for name in names), 0
    for name in names:
        square, base_square, largest, changed = 0.0, 0.0, 0.0, 0
        for origin, (delta,) in _delta_blocks(base, (expert,), name):
            square += _dot(delta, delta)
            base_square += _dot(origin, origin)
            largest = max(largest, float(delta.abs().max()))
            changed += int(np.count_nonzero(cast("NDArray[np.float32]", delta.numpy())))
        count = base.tensors[name].count
        layer = layer_of(name)
        norm = math.sqrt(square)
        relative = norm / math.sqrt(base_square) if base_square else math.inf
        place = layer[1] if layer else None
        changes.append(TensorChange(name, place, count, norm, relative, largest, changed))
        done += count
        if progress:
            progress(done, whole)
    return TaskVectorStatistics(base.name, expert.name, tuple(changes))


def interference(
    base: Checkpoint, experts: Sequence[Checkpoint], progress: Progress | None = None
) -> Interference:
    """Cosines and sign conflicts between the experts' task vectors, over all float tensors."""
    size = len(experts)
    gram = np.zeros((size, size))
    both = np.zeros((size, size))
    opposed = np.zeros((size, size))
    names = _float_tensors(base, experts)
    whole, done = sum(base.tensors[name].count for name in names), 0
    for name in names:
        for _, deltas in _delta_blocks(base, experts, name):
            signs = [delta.sign() for delta in deltas]
            for i in range(size):
                gram[i, i] += _dot(deltas[i], deltas[i])
                for j in range(i):
                    gram[i, j] += _dot(deltas[i], deltas[j])
                    product = signs[i] * signs[j]
                    both[i, j] += _dot(product, product)
                    opposed[i, j] += float((product < 0).sum())
        done += base.tensors[name].count
        if progress:
            progress(done, whole)
    return _interference(tuple(each.name for each in experts), gram, both, opposed)


def _interference(
    names: tuple[str, ...],
    gram: NDArray[np.float64],
    both: NDArray[np.float64],
    opposed: NDArray[np.float64],
) -> Interference:
    norms = np.sqrt(np.diag(gram))
    lengths = np.outer(norms, norms)
    full = gram + np.tril(gram, -1).T
    cosine = np.divide(full, lengths, out=np.zeros_like(full), where=lengths > 0)
    conflict = np.divide(opposed, both, out=np.zeros_like(both), where=both > 0)
    conflict = conflict + conflict.T
    return Interference(
        names,
        tuple(tuple(float(value) for value in row) for row in cosine),
        tuple(tuple(float(value) for value in row) for row in conflict),
        tuple(float(value) for value in norms),
    )


def _dot(first: Tensor, second: Tensor) -> float:
    import torch

    return float((first * second).sum(dtype=torch.float64))


def _float_tensors(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    skipped: Mapping[str, str] = excluded(base)
    names = [
        name
        for name, entry in base.tensors.items()
        if name not in skipped and entry.dtype in FLOAT_DTYPES and entry.count
    ]
    # Rows of different tokens have no difference; a merge brings them to one vocabulary first.
    if any(differing_vocabulary(base, expert) for expert in experts):
        names = [name for name in names if not is_vocabulary(name)]
    for expert in experts:
        for name in names:
            entry = find_source(expert, name)
            if entry is None or entry.shape != base.tensors[name].shape:
                what = "lacks" if entry is None else "has another shape for"
                raise CompatibilityError(
                    f"models {base.name} and {expert.name}",
                    [Fault(expert.name, f"{what} '{name}', so there is no task vector")],
                )
    return sorted(names, key=natural_key)


def _delta_blocks(
    base: Checkpoint, experts: Sequence[Checkpoint], name: str
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    whole = base.tensors[name].count
    for start in range(0, whole, BLOCK):
        count = min(BLOCK, whole - start)
        origin = _values(base, name, start, count)
        deltas = [_values(expert, name, start, count).sub_(origin) for expert in experts]
        yield origin, deltas


def _values(checkpoint: Checkpoint, name: str, start: int, count: int) -> Tensor:
    import torch

    values = torch.empty(count, dtype=torch.float32)
    source = find_source(checkpoint, name)
    assert source is not None  # _float_tensors has been through all of them
    source.fill(fetch_stored, start, values)
    return values
