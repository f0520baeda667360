"""arcee_fusion: take over from an expert the entries whose change is outstandingly important."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.rows import as_rows, row_groups, row_sums
from merge_ops.measures.selection import Selection, observe_all
from merge_ops.measures.trimming import INSIDE_LIMIT
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-8  # added to every probability, as in mergekit
QUARTERS = (1, 2, 3)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ArceeFusionParameters:
    """None: everything follows from the checkpoints."""


def row_divergence(base: Tensor, expert: Tensor) -> Floats:
    """KL(softmax(expert) + ε ‖ softmax(base) + ε) of every row, in float64 on the CPU.

    The divergence of two near rows is the small rest of a sum of larger terms of both signs.
    In float32 nothing is left of it where weights differ by 1e-4, as fine-tuned ones do.
    """
    found = np.empty(len(base), dtype=np.float32)
    for group in row_groups(*base.shape):
        p, q = (_softmax(each[group]) + EPSILON for each in (expert, base))
        found[group] = np.maximum(_sums(p * np.log(p / q)), 0.0)  # below zero it is rounding
    return found


def _softmax(rows: Tensor) -> NDArray[np.float64]:
    values = rows.cpu().numpy().astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    powers = np.exp(values)
    return powers / _sums(powers)[:, np.newaxis]


def _sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    import torch

    return row_sums(torch.as_tensor(values))


@dataclass(frozen=True)
class Outstanding:
    """One block's divergences, shape (rows, 1), and the tensor's threshold."""

    divergence: Tensor
    threshold: float


@dataclass(frozen=True)
class _Rows:
    """The first round's observation: a block's divergences, and the importance of some entries."""

    divergence: Floats
    sample: Floats


class ImportanceMeasure(Measure):
    """The divergence of every row, then the quartiles of importance, exact and without sorting.

    Two rounds, unless a sample misleads: the first finds the divergences and takes a sample, from
    which the three quartiles are bracketed; the second finds them.
    """

    sample = 0  # divergences need whole rows, and are known from the first round on only

    def __init__(self, job: TensorJob, parameters: Sequence[ArceeFusionParameters]) -> None:
        last = job.count - 1
        ranks = [job.count - quarter * last // 4 for quarter in QUARTERS]
        limit = INSIDE_LIMIT // len(QUARTERS)
        self._quartiles = [Selection(rank, job.count, limit) for rank in ranks]
        wanted = max(each.sample for each in self._quartiles)
        self._step = (job.count // max(1, wanted)) | 1  # odd: all columns get into the sample
        self._divergence: list[Floats] = []
        self._threshold = 0.0
        self.wanted = True

    def observe(self, block: Block) -> Any:
        """Divergences and a sample; in later rounds what the block says to every quartile."""
        base, expert = (as_rows(each) for each in block.inputs)
        if not self._divergence:
            divergence = row_divergence(base, expert)
            return _Rows(divergence, _flat(base, expert, divergence)[:: self._step].copy())
        values = _flat(base, expert, self._divergence[block.index])
        return observe_all([each for each in self._quartiles if each.threshold is None], values)

    def absorb(self, observations: Sequence[Any]) -> None:
        """Take one round in; after the last one the threshold is known."""
        if not self._divergence:
            seen = cast("Sequence[_Rows]", observations)
            self._divergence = [each.divergence for each in seen]
            sample = np.concatenate([each.sample for each in seen])
            for each in self._quartiles:
                each.look(sample)
            return
        open_ones = [each for each in self._quartiles if each.threshold is None]
        for position, each in enumerate(open_ones):
            each.absorb([block[position] for block in observations])
        found = [each.threshold.value for each in self._quartiles if each.threshold is not None]
        if len(found) == len(QUARTERS):
            first, median, third = (np.float32(value) for value in found)
            self._threshold = float(median + np.float32(1.5) * (third - first))
            self.wanted = False

    def at(self, block: Block, coefficient: int) -> Outstanding:
        """What tells the outstanding entries of this block."""
        import torch

        divergence = torch.as_tensor(self._divergence[block.index], device=block.inputs[0].device)
        return Outstanding(divergence.unsqueeze(1), self._threshold)


def _flat(base: Tensor, expert: Tensor, divergence: Floats) -> Floats:
    """The importance of every entry of a block, on the CPU."""
    import torch

    rows = torch.as_tensor(divergence, device=base.device).unsqueeze(1)
    return cast(Floats, importance(base, expert, rows).view(-1).cpu().numpy())


def importance(base: Tensor, expert: Tensor, divergence: Tensor) -> Tensor:
    """|expert − base| · the divergence of its row."""
    return (expert - base).abs_().mul_(divergence)


@merge_method(
    "arcee_fusion",
    parameters=ArceeFusionParameters,
    inputs="checkpoints",
    span="row",
    family="subspace",
    source="https://arcee.ai",
    measure=ImportanceMeasure,
    exactly=2,
)
def arcee_fusion(
    checkpoints: Sequence[Tensor], statistics: Outstanding, parameters: ArceeFusionParameters
) -> Tensor:
    """The expert where its importance is at least Q₂ + 1.5 (Q₃ − Q₁), else the base, per tensor.

    Arcee AI 2024 (mergekit). Importance is |b − a| · KL(softmax(b) + 1e-8 ‖ softmax(a) + 1e-8), the
    softmax along the last dimension. The quartile Qₖ is the entry at place ⌊k (n − 1) / 4⌋ in
    ascending order, not interpolated. mergekit sorts, and beyond a million entries takes quartiles
    of a random sample; ours are exact. mergekit finds the divergence in the dtype of the merge, we
    in float64 (see `row_divergence`). What is taken is the expert's own value; mergekit adds b − a
    to a, which may differ in the last bit.

    Memory: a block is whole rows, at least one, so a thread holds max(block, row) elements of both,
    and 4 bytes for every row of the tensor.
    """
    import torch

    base, expert = (as_rows(each) for each in checkpoints)
    important = importance(base, expert, statistics.divergence) >= statistics.threshold
    return torch.where(important, expert, base)
