"""sce: select where the experts differ, calculate their weights, erase what disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops import kernels
from merge_ops.measure import LEAF, Block, Measure, TensorJob, leaf_sums, total
from merge_ops.methods.registry import merge_method
from merge_ops.methods.ties import elected_sign
from merge_ops.parameters import shared
from merge_ops.selection import Selection, observe_all
from merge_ops.trimming import INSIDE_LIMIT
from merge_ops.values import on_cpu

if TYPE_CHECKING:
    from torch import Tensor

SMALL = 1e-6


@dataclass(frozen=True)
class SceParameters:
    """`select_topk` of the entries on which the experts differ are merged."""

    select_topk: float = shared(
        "select_topk",
        float,
        1.0,
        "the share of entries kept, those of largest variance across experts",
        above=0,
        at_most=1,
    )


@dataclass(frozen=True)
class Selected:
    """The task vectors of a block with everything else set to zero, and the experts' weights."""

    deltas: Sequence[Tensor]
    weights: Sequence[float]


def variance(deltas: Sequence[Tensor]) -> Tensor:
    """The variance across experts of every entry: computed in float64, rounded to float32."""
    found = kernels.variance(deltas)
    if found is not None:
        return found
    result = deltas[0].new_empty(deltas[0].shape)
    for start in range(0, len(result), LEAF):  # pieces that stay in the cache: five times as fast
        parts = [delta[start : start + LEAF].double() for delta in deltas]
        mean = parts[0].clone()
        for part in parts[1:]:
            mean.add_(part)
        mean.div_(len(parts))
        squares = mean.new_zeros(mean.shape)
        for part in parts:
            squares.add_(part.sub_(mean).square_())
        result[start : start + LEAF] = squares.div_(len(parts))
    return result


def selected_count(nonzero: int, share: float) -> int:
    """⌊share · nonzero⌋ as mergekit rounds it: the product in float32."""
    return min(nonzero, int(np.float32(nonzero) * np.float32(share)))


class VarianceMeasure(Measure):
    """The variance threshold of every share, then Σδ² over what is selected: the weights.

    The share is one of the entries that differ at all, and their number is known only after the
    first round. Until then the sample's estimate serves to bracket the threshold.
    """

    def __init__(self, job: TensorJob, parameters: Sequence[SceParameters]) -> None:
        self._count = job.count
        self._topk = [each.select_topk for each in parameters]
        shares = sorted({share for share in self._topk if share < 1})
        limit = INSIDE_LIMIT // max(1, len(shares))
        self._selections = {
            share: Selection(max(1, int(share * job.count)), job.count, limit) for share in shares
        }
        self._counted = False
        self._weights: dict[float, list[float]] = {}
        self.wanted = True
        self.sample = max((each.sample for each in self._selections.values()), default=0)

    def look(self, inputs: Sequence[Tensor]) -> None:
        """Bracket every threshold."""
        seen = on_cpu(variance(inputs))
        differing = np.count_nonzero(seen) / max(1, len(seen))
        for share, selection in self._selections.items():
            selection.k = max(1, int(share * differing * self._count))
            selection.look(seen)

    def observe(self, block: Block) -> dict[Any, Any]:
        """What this block says to every open selection; with none open, Σδ² of what is kept."""
        waiting = self._open()
        if waiting:
            seen = on_cpu(variance(block.inputs))
            said = observe_all([self._selections[each] for each in waiting], seen)
            found: dict[Any, Any] = dict(zip(waiting, said, strict=True))
            return found | {"differing": int(np.count_nonzero(seen))}
        return {
            share: [leaf_sums(delta, delta) for delta in self._kept(block, share)]
            for share in sorted(set(self._topk))
        }

    def absorb(self, observations: Sequence[dict[Any, Any]]) -> None:
        """Take one round in."""
        if not self._open():
            for share in observations[0]:
                leaves = zip(*(seen[share] for seen in observations), strict=True)
                self._weights[share] = _weights([total(each) / self._count for each in leaves])
            self.wanted = False
            return
        if not self._counted:
            differing = sum(seen["differing"] for seen in observations)
            for share, selection in self._selections.items():
                selection.k = selected_count(differing, share)
            self._counted = True
        for share in self._open():
            self._selections[share].absorb([seen[share] for seen in observations])

    def at(self, block: Block, coefficient: int) -> Selected:
        """The selected entries of this block."""
        share = self._topk[coefficient]
        return Selected(self._kept(block, share), self._weights[share])

    def _open(self) -> list[float]:
        """The shares whose threshold is not known; none is needed where nothing is selected."""
        return [share for share, each in self._selections.items() if not each.threshold and each.k]

    def _kept(self, block: Block, share: float) -> Sequence[Tensor]:
        if share >= 1:
            return block.inputs
        threshold = self._selections[share].threshold
        if threshold is None:
            return [delta.new_zeros(delta.shape) for delta in block.inputs]
        # Floats: multiplying by them is several times quicker than selecting by bools.
        mask = threshold.apply(variance(block.inputs), block.index).sign_()
        return [delta * mask for delta in block.inputs]


def _weights(means: Sequence[float]) -> list[float]:
    """The mean squares, divided by their sum; equal where that is below 1e-6."""
    whole = sum(means)
    return [1 / len(means) if whole < SMALL else each / whole for each in means]


@merge_method(
    "sce",
    parameters=SceParameters,
    inputs="task_vectors",
    span="element",
    family="weighted",
    source="arXiv:2408.07990",
    measure=VarianceMeasure,
    at_least=2,
    unused=("int8_mask",),
)
def sce(deltas: Sequence[Tensor], statistics: Selected, parameters: SceParameters) -> Tensor:
    """δ = Σ wᵢδᵢ / Σ wᵢ over the experts that agree with the sign of Σ δᵢ, on selected entries.

    Wan et al. 2024, "FuseChat", https://arxiv.org/abs/2408.07990. Selected are the
    ⌊select_topk · m⌋ entries of largest variance across experts, m being those that differ at all;
    wᵢ is the mean square of what is left of δᵢ. As in mergekit, and unlike the paper: where these
    mean squares sum to less than 1e-6, as those of lightly fine-tuned experts do, all weights are
    equal; and Σ wᵢ counts as at least 1e-6. Equal variances are selected from the lowest index on.
    """
    import torch

    weights = statistics.weights
    found = kernels.disjoint_merge(
        statistics.deltas, [1.0] * len(weights), weights, weights, SMALL, 1.0
    )
    if found is not None:
        return found
    elected = elected_sign(statistics.deltas)
    merged = torch.zeros_like(elected)
    divisor = torch.zeros_like(elected)
    for delta, weight in zip(statistics.deltas, statistics.weights, strict=True):
        agreeing = (delta * elected).clamp_min_(0)
        merged.add_(agreeing, alpha=weight)
        divisor.add_(agreeing.sign_(), alpha=weight)
    return merged.div_(divisor.clamp_min_(SMALL)).mul_(elected)
