"""dare_linear and dare_ties: drop entries of the task vectors at random and rescale the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import Block, Measure, TensorJob, leaf_sums, total
from merge_ops.measures.randomness import keep, stream_key
from merge_ops.measures.trimming import l1_factor
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.task_arithmetic import scaled_sum
from merge_ops.methods.ties import disjoint_merge

if TYPE_CHECKING:
    from torch import Tensor

RESCALE = ("l1_norm", "inverse_density", "none")


def rescale_after_dropping() -> Any:
    """The parameter `rescale` of methods that drop at random."""
    return shared(
        "rescale",
        str,
        "l1_norm",
        "how kept entries are scaled up; true means l1_norm as in mergekit",
        choices=RESCALE,
        aliases={True: "l1_norm", False: "none"},
    )


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
        self._keys = [stream_key(job.seed, job.tensor, name) for name in job.inputs]
        self._parameters = parameters
        self._pairs = sorted(
            {
                (expert, density)
                for each in parameters
                if each.rescale == "l1_norm"
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
                sums[expert] = leaf_sums(block.inputs[expert])
            seen.append((sums[expert], leaf_sums(self._kept(block, expert, density))))
        return seen

    def absorb(
        self, observations: Sequence[list[tuple[NDArray[np.float64], NDArray[np.float64]]]]
    ) -> None:
        """How much what is kept grows."""
        for position, pair in enumerate(self._pairs):
            before = total([seen[position][0] for seen in observations])
            after = total([seen[position][1] for seen in observations])
            self._factors[pair] = l1_factor(before, after)
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[Tensor]:
        """The dropped and rescaled task vectors of this block."""
        parameters = self._parameters[coefficient]
        return [
            self._dropped(block, expert, density, parameters.rescale)
            for expert, density in enumerate(parameters.density)
        ]

    def _dropped(self, block: Block, expert: int, density: float, rescale: str) -> Tensor:
        delta = block.inputs[expert]
        if density >= 1:
            return delta
        kept = self._kept(block, expert, density)
        if rescale == "l1_norm":
            kept *= self._factors[expert, density]
        elif rescale == "inverse_density":
            kept /= density
        return kept

    def _kept(self, block: Block, expert: int, density: float) -> Tensor:
        return keep(self._keys[expert], block.start, block.inputs[expert], density)


@merge_method(
    "dare_linear",
    parameters=DareParameters,
    inputs="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2311.03099",
    arrays=True,
    measure=DropMeasure,
    random=True,
    unused=("int8_mask",),
)
def dare_linear(
    deltas: Sequence[Tensor], statistics: list[Tensor], parameters: DareParameters
) -> WeightedSum:
    """δ = λ Σ wᵢ δ̂ᵢ, where δ̂ keeps each entry with chance `density` and scales what is kept.

    Yu et al. 2024, "Language models are super Mario", https://arxiv.org/abs/2311.03099. The paper
    divides by the density (`rescale: inverse_density`, unbiased); mergekit restores Σ|δ| per tensor
    (`l1_norm`, the default here too). Masks are Philox bits, not mergekit's sequential generator.
    """
    return scaled_sum(statistics, parameters.weight, parameters.normalize, parameters.lambda_)


@merge_method(
    "dare_ties",
    parameters=DareParameters,
    inputs="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2311.03099",
    arrays=True,
    measure=DropMeasure,
    random=True,
    unused=("int8_mask",),
)
def dare_ties(
    deltas: Sequence[Tensor], statistics: list[Tensor], parameters: DareParameters
) -> Tensor:
    """Drop and rescale as dare_linear, then elect a sign and merge the agreeing entries as ties.

    Yu et al. 2024; no second trim, and `normalize` is off by default, as in mergekit.
    """
    return disjoint_merge(statistics, parameters.weight, parameters.normalize, parameters.lambda_)
