"""della and della_linear: drop entries at random, the more likely the smaller they are in a row."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from merge_ops.errors import Fault
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.randomness import stream_key, thresholds
from merge_ops.measures.rows import as_rows, row_length, row_sums
from merge_ops.measures.trimming import L1_NORM, l1_factor
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.sparse_parameters import INVERSE_DENSITY, rescale_after_dropping
from merge_ops.methods.task_arithmetic import scaled_sum
from merge_ops.methods.ties import disjoint_merge
from merge_ops.methods.weight_sums import first_of, sum_of_task_vectors, sums_that_agree

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values

Pruning = tuple[int, float, float]
"""(expert, density, epsilon)."""

# Bytes of masks held between two rounds, over all experts and densities: as many as thresholds.
HELD = 1 << 26


def bytes_of_masks(rows: int, length: int) -> int:
    """What the masks of so many rows take: one bit for each entry, every row in whole bytes."""
    return rows * -(-length // 8)


@dataclass(frozen=True)
class DellaLinearParameters:
    """`density` is the mean chance of being kept, `epsilon` how far it varies within a row."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the expert's share")
    density: tuple[float, ...] = per_input(
        "density", 1.0, "the share of entries kept", above=0, at_most=1
    )
    epsilon: tuple[float, ...] = per_input(
        "epsilon", 0.15, "how far the chance goes from the density, up and down", at_least=0
    )
    normalize: bool = shared("normalize", bool, False, "divide by the sum of the weights")
    rescale: str = rescale_after_dropping()
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@dataclass(frozen=True)
class DellaParameters(DellaLinearParameters):
    """As those of della_linear, but the sum is made a mean unless told otherwise."""

    normalize: bool = shared(
        "normalize", bool, True, "divide by the weights of the experts that agree"
    )


def chances_outside(parameters: DellaLinearParameters) -> Fault | None:
    """Every chance must be one: density ± epsilon within (0, 1), unless nothing is dropped."""
    for density, epsilon in zip(parameters.density, parameters.epsilon, strict=True):
        if density < 1 and (density - epsilon <= 0 or density + epsilon >= 1):
            room = min(density, 1 - density)
            problem = (
                f"is {epsilon:g} with density {density:g}; the chances of being kept go from"
                f" density - epsilon to density + epsilon and must stay above 0 and below 1, so"
                f" epsilon must be below {room:g} here"
            )
            return Fault("parameters.epsilon", problem)
    return None


def keep_chances(density: float, epsilon: float, length: int) -> NDArray[np.float64]:
    """The chance of rank 0 … n − 1: from d − ε in even steps to d + ε; d in rows of one."""
    rank = np.arange(length) / (length - 1) if length > 1 else np.array([0.5])
    return (density - epsilon) + 2 * epsilon * rank


@dataclass(frozen=True)
class _Seen:
    """Of one block and pruning: sums by row of |δ| and of the kept |δ|, and the mask if it fits."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    decided: Any


class PruneMeasure(Measure):
    """Task vectors with entries dropped by rank; for `rescale: l1_norm` one round of sums before.

    The masks of that round, one bit for each entry, are held until the tensor is merged where all
    of its experts' and densities' take no more than 64 MiB; else they are made again.
    """

    def __init__(self, job: TensorJob, parameters: Sequence[DellaLinearParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._keys = [stream_key(job.seed, job.tensor, name) for name in job.inputs]
        self._parameters = parameters
        self._prunings: list[Pruning] = sorted(
            {
                (expert, density, epsilon)
                for each in parameters
                if each.rescale == L1_NORM
                for expert, (density, epsilon) in enumerate(
                    zip(each.density, each.epsilon, strict=True)
                )
                if density < 1
            }
        )
        length = row_length(job.shape)
        mask = bytes_of_masks(-(-job.count // length), length)
        self._holds = mask * len(self._prunings) <= HELD
        self._held: dict[Pruning, list[Any]] = {}
        self._factors: dict[Pruning, float] = {}
        self._local = threading.local()
        self.wanted = bool(self._prunings)

    def observe(self, block: Block) -> list[_Seen]:
        """Sums by row, before and after, for every expert, density and epsilon; and the masks."""
        before: dict[int, NDArray[np.float64]] = {}
        seen: list[_Seen] = []
        for pruning in self._prunings:
            expert = pruning[0]
            delta = as_rows(block.inputs[expert])
            if expert not in before:
                before[expert] = row_sums(self._arithmetic, delta)
            decided = self._decided(block, pruning)
            after = self._arithmetic.decided_sums(delta, decided)
            seen.append(_Seen(before[expert], after, decided if self._holds else None))
        return seen

    def absorb(self, observations: Sequence[list[_Seen]]) -> None:
        """How much what is kept grows."""
        for position, pruning in enumerate(self._prunings):
            seen = [each[position] for each in observations]
            before = math.fsum(np.concatenate([each.before for each in seen]).tolist())
            after = math.fsum(np.concatenate([each.after for each in seen]).tolist())
            self._factors[pruning] = l1_factor(before, after)
            if self._holds:
                self._held[pruning] = [each.decided for each in seen]
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[Values]:
        """The pruned and rescaled task vectors of this block."""
        each = self._parameters[coefficient]
        return [
            self._pruned(block, (expert, density, epsilon), each.rescale)
            for expert, (density, epsilon) in enumerate(
                zip(each.density, each.epsilon, strict=True)
            )
        ]

    def _pruned(self, block: Block, pruning: Pruning, rescale: str) -> Values:
        expert, density, epsilon = pruning
        delta = as_rows(block.inputs[expert])
        if density >= 1:
            return delta
        decided = self._decided(block, pruning)
        if rescale == L1_NORM:
            return self._arithmetic.apply_decided(delta, decided, self._factors[pruning])
        kept = self._arithmetic.apply_decided(delta, decided, 1.0)
        if rescale == INVERSE_DENSITY:
            growth = 1 / keep_chances(density, epsilon, delta.shape[1])
            kept *= self._arithmetic.by_rank(growth.astype(np.float32), delta)
        return kept

    def _decided(self, block: Block, pruning: Pruning) -> Any:
        """The mask; where it is not held, this thread keeps it until it comes to another block."""
        if pruning in self._held:
            return self._held[pruning][block.index]
        if getattr(self._local, "block", None) is not block:
            self._local.block = block
            self._local.decided = dict[Pruning, Any]()
        decided = cast("dict[Pruning, Any]", self._local.decided)
        if pruning not in decided:
            expert, density, epsilon = pruning
            delta = as_rows(block.inputs[expert])
            chances = keep_chances(density, epsilon, delta.shape[1])
            decided[pruning] = self._arithmetic.decide_by_rank(
                self._keys[expert], block.start, delta, thresholds(chances)
            )
        return decided[pruning]


@merge_method(
    "della_linear",
    parameters=DellaLinearParameters,
    sees="dropped",
    span="row",
    family="subspace",
    source="arXiv:2406.11617",
    arrays=True,
    version=2,
    measure=PruneMeasure,
    check=first_of(chances_outside, sum_of_task_vectors),
    random=True,
    unused=("int8_mask",),
)
def della_linear(
    deltas: Sequence[Values],
    dropped: list[Values],
    parameters: DellaLinearParameters,
    arithmetic: Arithmetic,
) -> WeightedSum:
    """δ = λ Σ wᵢ δ̂ᵢ; δ̂ keeps an entry with chance (d − ε) + 2 ε r, r its rank in its row, 0 to 1.

    Deep et al. 2024, "DELLA-Merging", https://arxiv.org/abs/2406.11617. The paper divides each kept
    entry by its own chance (`rescale: inverse_density`, unbiased); mergekit restores Σ|δ| of the
    tensor (`l1_norm`, the default here too). r = 0 is the smallest |δ|; among equal ones the first
    counts as smaller (mergekit: any order). In a row of one entry, where mergekit divides zero by
    zero and stops, its chance is d. A row is a run of the last dimension, also in tensors of more
    than two; mergekit takes the second one there. Masks are Philox bits, as those of dare_linear;
    with ε = 0 they are the same.

    Memory: a block is whole rows, at least one, so a thread holds max(block, row) elements of each
    input and some 50 bytes for each element of one row. Of a tensor 16 bytes are held for each row,
    expert and density, and its masks, one bit for each entry, where all take no more than 64 MiB.
    """
    return scaled_sum(dropped, parameters.weight, parameters.normalize, parameters.lambda_)


@merge_method(
    "della",
    parameters=DellaParameters,
    sees="dropped",
    span="row",
    family="subspace",
    source="arXiv:2406.11617",
    arrays=True,
    version=2,
    measure=PruneMeasure,
    check=first_of(chances_outside, sums_that_agree),
    random=True,
    unused=("int8_mask",),
)
def della(
    deltas: Sequence[Values],
    dropped: list[Values],
    parameters: DellaParameters,
    arithmetic: Arithmetic,
) -> Values:
    """Drop and rescale as della_linear, then elect a sign and merge the agreeing entries as ties.

    Deep et al. 2024; `normalize` is on by default, as in mergekit. Memory: see della_linear.

    Blocks, one before and one after dropping for each expert, and the result are (rows, columns).
    """
    return disjoint_merge(
        arithmetic, dropped, parameters.weight, parameters.normalize, parameters.lambda_
    )
