"""arcee_fusion: take over from an expert the entries whose change is outstandingly important."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.rows import as_rows, row_groups
from merge_ops.measures.thresholds import ThresholdSearch, look_all, observe_all
from merge_ops.measures.trimming import INSIDE_LIMIT
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values

EPSILON = 1e-8  # added to every probability, as in mergekit
QUARTERS = (1, 2, 3)


@dataclass(frozen=True)
class ArceeFusionParameters:
    """None: everything follows from the checkpoints."""


def row_divergence(arithmetic: Arithmetic, base: Tensor, expert: Tensor) -> Tensor:
    """KL(softmax(expert) + ε ‖ softmax(base) + ε) of every row, (rows, n) to float32 (rows, 1).

    It is found in float64. The divergence of two near rows is the small rest of a sum of larger
    terms of both signs. In float32 nothing is left of it where weights differ by 1e-4, as
    fine-tuned ones do.
    """
    divergence = base.new_empty((len(base), 1))
    for group in row_groups(len(base), base.shape[1]):
        p, q = (_softmax(arithmetic, rows[group]).add_(EPSILON) for rows in (expert, base))
        # Below zero it is rounding.
        divergence[group] = _sums(arithmetic.logarithm(p / q).mul_(p)).clamp_min_(0.0).float()
    return divergence


def _softmax(arithmetic: Arithmetic, rows: Tensor) -> Tensor:
    """The softmax of every row, (rows, n), in float64."""
    values = rows.double()
    powers = arithmetic.exponential(values.sub_(values.amax(dim=1, keepdim=True)))
    return powers.div_(_sums(powers))


def _sums(values: Tensor) -> Tensor:
    """The sum of every row, float64 (rows, n) to (rows, 1), in an order that follows from n."""
    from merge_ops.kernels.torch_arithmetic import sums_by_halves

    return sums_by_halves(values.unsqueeze(-1))


@dataclass(frozen=True)
class Outstanding:
    """One block's divergences, shape (rows, 1), and the tensor's threshold."""

    divergence: Tensor
    threshold: float


@dataclass(frozen=True)
class _Rows:
    """The first round's observation: a block's divergences, and the importance of some entries."""

    divergence: Tensor
    sample: Values


class ImportanceMeasure(Measure):
    """The divergence of every row, then the quartiles of importance, exact and without sorting.

    Two rounds, unless a sample misleads: the first finds the divergences and takes a sample, from
    which the three quartiles are bracketed; the second finds them.
    """

    sample = 0  # divergences need whole rows, and are known from the first round on only

    def __init__(self, job: TensorJob, parameters: Sequence[ArceeFusionParameters]) -> None:
        self._arithmetic = job.arithmetic
        last = job.count - 1
        ranks = [job.count - quarter * last // 4 for quarter in QUARTERS]
        limit = INSIDE_LIMIT // len(QUARTERS)
        self._quartiles = [
            ThresholdSearch(job.arithmetic, rank, job.count, limit) for rank in ranks
        ]
        wanted = max(each.sample for each in self._quartiles)
        self._step = (job.count // max(1, wanted)) | 1  # odd: all columns get into the sample
        self._divergence: list[Tensor] = []
        self._threshold = 0.0
        self.wanted = True

    def observe(self, block: Block) -> Any:
        """Divergences and a sample; in later rounds what the block says to every quartile."""
        base, expert = self._arithmetic.tensors([as_rows(values) for values in block.inputs])
        if not self._divergence:
            divergence = row_divergence(self._arithmetic, base, expert)
            flat = importance(base, expert, divergence).view(-1)
            return _Rows(divergence, self._arithmetic.copy(flat[:: self._step]))
        flat = importance(base, expert, self._divergence[block.index]).view(-1)
        open_ones = [search for search in self._quartiles if search.threshold is None]
        return observe_all(self._arithmetic, open_ones, self._arithmetic.own(flat))

    def absorb(self, observations: Sequence[Any]) -> None:
        """Take one round in; after the last one the threshold is known."""
        if not self._divergence:
            seen = cast("Sequence[_Rows]", observations)
            self._divergence = [each.divergence for each in seen]
            sample = self._arithmetic.joined([each.sample for each in seen])
            look_all(self._arithmetic, self._quartiles, sample)
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
        return Outstanding(self._divergence[block.index], self._threshold)


def importance(base: Tensor, expert: Tensor, divergence: Tensor) -> Tensor:
    """|expert − base| · the divergence of its row: (rows, n), (rows, n), (rows, 1) to (rows, n)."""
    return (expert - base).abs_().mul_(divergence)


@merge_method(
    "arcee_fusion",
    parameters=ArceeFusionParameters,
    sees="checkpoints",
    span="row",
    family="subspace",
    source="https://arcee.ai",
    measure=ImportanceMeasure,
    exactly=2,
)
def arcee_fusion(
    checkpoints: Sequence[Values],
    outstanding: Outstanding,
    parameters: ArceeFusionParameters,
    arithmetic: Arithmetic,
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

    base, expert = arithmetic.tensors([as_rows(values) for values in checkpoints])
    important = importance(base, expert, outstanding.divergence) >= outstanding.threshold
    return torch.where(important, expert, base)
