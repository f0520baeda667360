"""dare_linear and dare_ties: drop entries of the task vectors at random and rescale the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import LEAF, Block, Measure, TensorJob, total
from merge_ops.measures.randomness import stream_key, threshold_of
from merge_ops.measures.trimming import L1_NORM, l1_factor
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.sparse_parameters import INVERSE_DENSITY, rescale_after_dropping
from merge_ops.methods.task_arithmetic import scaled_sum
from merge_ops.methods.ties import disjoint_merge
from merge_ops.methods.weight_sums import sum_of_task_vectors, sums_that_agree

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class DareParameters:
    """`density` is the chance of being kept; `rescale` says how the kept entries grow."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the expert's share")
    density: tuple[float, ...] = per_input(
        "density", 1.0, "the share of entries kept", above=0, at_most=1
    )
    normalize: bool = shared("normalize", bool, False, "divide by the sum of the weights")
    rescale: str = rescale_after_dropping()
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


class DropMeasure(Measure):
    """Masks and, for `rescale: l1_norm`, Σ|δ| before and after dropping: one round, or none."""

    def __init__(self, job: TensorJob, parameters: Sequence[DareParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._keys = [stream_key(job.seed, job.tensor, name) for name in job.inputs]
        self._parameters = parameters
        self._pairs = sorted(
            {
                (expert, density)
                for each in parameters
                if each.rescale == L1_NORM
                for expert, density in enumerate(each.density)
                if density < 1
            }
        )
        self._factors: dict[tuple[int, float], float] = {}
        self.wanted = bool(self._pairs)

    def observe(self, block: Block) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Leaf sums of |δ| and of the kept |δ| for every (expert, density)."""
        sums: dict[int, NDArray[np.float64]] = {}
        seen: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        for expert, density in self._pairs:
            if expert not in sums:
                sums[expert] = self._arithmetic.leaf_sums(block.inputs[expert], None, LEAF)
            kept = self._kept(block, expert, density)
            seen.append((sums[expert], self._arithmetic.leaf_sums(kept, None, LEAF)))
        return seen

    def absorb(
        self, observations: Sequence[list[tuple[NDArray[np.float64], NDArray[np.float64]]]]
    ) -> None:
        """The leaf sums, each of shape (leaves,), give the factors by which what is kept grows."""
        for position, pair in enumerate(self._pairs):
            before = total([seen[position][0] for seen in observations])
            after = total([seen[position][1] for seen in observations])
            self._factors[pair] = l1_factor(before, after)
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[Values]:
        """The dropped and rescaled task vectors of this block."""
        parameters = self._parameters[coefficient]
        return [
            self._dropped(block, expert, density, parameters.rescale)
            for expert, density in enumerate(parameters.density)
        ]

    def _dropped(self, block: Block, expert: int, density: float, rescale: str) -> Values:
        delta = block.inputs[expert]
        if density >= 1:
            return delta
        kept = self._kept(block, expert, density)
        if rescale == L1_NORM:
            kept *= self._factors[expert, density]
        elif rescale == INVERSE_DENSITY:
            kept /= density
        return kept

    def _kept(self, block: Block, expert: int, density: float) -> Values:
        threshold = threshold_of(density)
        delta = block.inputs[expert]
        return self._arithmetic.keep_random(self._keys[expert], block.start, delta, threshold)


@merge_method(
    "dare_linear",
    parameters=DareParameters,
    sees="dropped",
    span="element",
    family="subspace",
    source="arXiv:2311.03099",
    arrays=True,
    measure=DropMeasure,
    check=sum_of_task_vectors,
    random=True,
    unused=("int8_mask",),
)
def dare_linear(
    deltas: Sequence[Values],
    dropped: list[Values],
    parameters: DareParameters,
    arithmetic: Arithmetic,
) -> WeightedSum:
    """δ = λ Σ wᵢ δ̂ᵢ, where δ̂ keeps each entry with chance `density` and scales what is kept.

    Yu et al. 2024, "Language models are super Mario", https://arxiv.org/abs/2311.03099. The paper
    divides by the density (`rescale: inverse_density`, unbiased); mergekit restores Σ|δ| per tensor
    (`l1_norm`, the default here too). Masks are Philox bits, not mergekit's sequential generator.

    Blocks are (n,), one before and one after dropping for each expert; the result is (n,).
    """
    return scaled_sum(dropped, parameters.weight, parameters.normalize, parameters.lambda_)


@merge_method(
    "dare_ties",
    parameters=DareParameters,
    sees="dropped",
    span="element",
    family="subspace",
    source="arXiv:2311.03099",
    arrays=True,
    measure=DropMeasure,
    check=sums_that_agree,
    random=True,
    unused=("int8_mask",),
)
def dare_ties(
    deltas: Sequence[Values],
    dropped: list[Values],
    parameters: DareParameters,
    arithmetic: Arithmetic,
) -> Values:
    """Drop and rescale as dare_linear, then elect a sign and merge the agreeing entries as ties.

    Yu et al. 2024; no second trim, and `normalize` is off by default, as in mergekit.

    Blocks are (n,), one before and one after dropping for each expert; the result is (n,).
    """
    return disjoint_merge(
        arithmetic, dropped, parameters.weight, parameters.normalize, parameters.lambda_
    )
