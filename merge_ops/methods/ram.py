"""ram and ramplus_tl: share what several experts changed, keep whole what one alone did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class RamParameters:
    """`epsilon`: entries of a task vector up to it count as unchanged."""

    epsilon: float = shared("epsilon", float, 1e-5, "the largest change that is none", at_least=0)


@merge_method(
    "ram",
    parameters=RamParameters,
    sees="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2601.13572",
)
def ram(
    inputs: Sequence[Values], _: None, parameters: RamParameters, arithmetic: Arithmetic
) -> Tensor:
    """δ = the mean of the δᵢ with |δᵢ| > ε, entry by entry; 0 where there is none.

    "Reinforced Agent Merging" 2026, https://arxiv.org/abs/2601.13572.

    Blocks are (n,), one for each expert; the result is (n,).
    """
    deltas = arithmetic.tensors(inputs)
    changed = [_changed(delta, parameters.epsilon) for delta in deltas]
    merged = deltas[0] * changed[0]
    for delta, mask in zip(deltas[1:], changed[1:], strict=True):
        merged.add_(delta * mask)
    return merged.div_(_total(changed).clamp_min_(1))


@dataclass(frozen=True)
class RamplusParameters:
    """`r` and `alpha` say how much stronger an expert's own changes become."""

    r: float = shared("r", float, 0.1, "growth for each shared change beside an own one")
    alpha: float = shared("alpha", float, 0.2, "the ratio beyond which growth stops", at_least=0)
    epsilon: float = shared("epsilon", float, 1e-5, "the largest change that is none", at_least=0)


class OverlapMeasure(Measure):
    """How many entries each expert changed alone and with others, for every ε of a sweep."""

    def __init__(self, job: TensorJob, parameters: Sequence[RamplusParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._parameters = parameters
        self._epsilons = sorted({each.epsilon for each in parameters})
        self._ratios: dict[float, list[float]] = {}
        self.wanted = True

    def observe(self, block: Block) -> list[Counts]:
        """For every ε an array (experts, 2): own and shared changes in this block."""
        deltas = self._arithmetic.tensors(block.inputs)
        return [_own_and_shared(deltas, epsilon) for epsilon in self._epsilons]

    def absorb(self, observations: Sequence[list[Counts]]) -> None:
        """shared / max(own, ε) of every expert; 0 where it has no own change to grow."""
        for position, epsilon in enumerate(self._epsilons):
            counts = sum((seen[position] for seen in observations), np.zeros((1, 2), np.int64))
            self._ratios[epsilon] = [
                float(both) / max(float(own), epsilon) if own else 0.0 for own, both in counts
            ]
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[float]:
        """How much each expert's own changes are multiplied by."""
        each = self._parameters[coefficient]
        return [1 + each.r * min(ratio, each.alpha) for ratio in self._ratios[each.epsilon]]


@merge_method(
    "ramplus_tl",
    parameters=RamplusParameters,
    sees="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2601.13572",
    measure=OverlapMeasure,
)
def ramplus_tl(
    inputs: Sequence[Values],
    growths: list[float],
    parameters: RamplusParameters,
    arithmetic: Arithmetic,
) -> Tensor:
    """ram with each expert's own changes × (1 + r · min(ρᵢ, α)), ρᵢ = shared / own, per tensor.

    "Reinforced Agent Merging" 2026, https://arxiv.org/abs/2601.13572; mergekit counts within a
    tensor ("tensor-local"), and so do we.

    Blocks are (n,), one for each expert; the result is (n,).
    """
    deltas = arithmetic.tensors(inputs)
    changed = [_changed(delta, parameters.epsilon) for delta in deltas]
    count = _total(changed)
    alone = (count == 1).to(count.dtype)
    merged = count.new_zeros(count.shape)
    for delta, mask, growth in zip(deltas, changed, growths, strict=True):
        factor = mask + (mask * alone).mul_(growth - 1)
        merged.add_(delta * factor)
    return merged.div_(count.clamp_min_(1))


def _changed(delta: Tensor, epsilon: float) -> Tensor:
    """1 where |δ| > ε, 0 elsewhere, as float32 of the same shape."""
    return (delta.abs() > epsilon).to(delta.dtype)


def _total(masks: Sequence[Tensor]) -> Tensor:
    count = masks[0].clone()
    for mask in masks[1:]:
        count.add_(mask)
    return count


def _own_and_shared(deltas: Sequence[Tensor], epsilon: float) -> Counts:
    changed = [delta.abs() > epsilon for delta in deltas]
    count = changed[0].byte()
    for mask in changed[1:]:
        count = count + mask
    alone = count == 1
    own = [int((mask & alone).sum()) for mask in changed]
    return np.array(
        [[o, int(mask.sum()) - o] for o, mask in zip(own, changed, strict=True)], dtype=np.int64
    )
