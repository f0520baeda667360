"""pcb: experts compete for every entry, and only the strongest claims are merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.thresholds import ThresholdSearch
from merge_ops.measures.trimming import INSIDE_LIMIT
from merge_ops.methods.parameters import per_input, shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values

Range = tuple[float, float]
LEAST = 1e-12  # a divisor's bound: shares are in [0, 1], and a sum of zeros divides zeros


@dataclass(frozen=True)
class PcbParameters:
    """`density` of an expert's entries, those of the strongest claims, are merged."""

    weight: tuple[float, ...] = per_input("weight", 1.0, "the expert's scale")
    density: tuple[float, ...] = per_input(
        "density", 0.1, "the share of entries kept", above=0, at_most=1
    )
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


def claim(
    arithmetic: Arithmetic, delta: Tensor, whole: Tensor, extent: Range, experts: int
) -> Tensor:
    """β = exp(n (u² − 1)) · tanh(δ · Σδ), u being |δ| brought from its `extent` to [0, 1]; (n,).

    The constant e⁻ⁿ, which the paper does not have, cancels later and keeps β in [−1, 1]. `whole`
    is float64, and all is rounded once to float32: thresholds are found among these values, so exp
    and tanh must not differ from one processor to another.
    """
    least, most = extent
    intra = delta.double().abs_().sub_(least).div_(most - least if most > least else 1.0)
    arithmetic.exponential(intra.square_().sub_(1).mul_(experts))
    return arithmetic.hyperbolic_tangent(whole * delta).mul_(intra).float()


class ClaimThreshold:
    """Finds the k-th largest of `count` signed values.

    It searches among their positive parts and, where fewer than k are positive, among their
    negative parts.
    """

    def __init__(self, arithmetic: Arithmetic, k: int, count: int, limit: int) -> None:
        self._arithmetic = arithmetic
        self._positive = ThresholdSearch(arithmetic, k, count, limit)
        self._negative = ThresholdSearch(arithmetic, count - k + 1, count, limit)
        self.sample = self._positive.sample
        self.value: float | None = None

    def look(self, values: Tensor) -> None:
        """Bracket the threshold by a sample, shape (n,)."""
        self._positive.look(self._arithmetic.own(values.clamp(min=0)))
        self._negative.look(self._arithmetic.own(values.clamp(max=0)))

    def observe(self, values: Tensor) -> Any:
        """What one block, shape (n,), says in this round."""
        if self._positive.threshold is None:
            return self._positive.observe(self._arithmetic.own(values.clamp(min=0)))
        return self._negative.observe(self._arithmetic.own(values.clamp(max=0)))

    def absorb(self, observations: Sequence[Any]) -> None:
        """Take one round in; sets `value` once it is known."""
        on_positive = self._positive.threshold is None
        search = self._positive if on_positive else self._negative
        search.absorb(observations)
        if search.threshold is None:
            return
        found = search.threshold.value
        if on_positive and found > 0:
            self.value = found
        elif not on_positive:
            self.value = -found


class ClaimMeasure(Measure):
    """The extent of every |δᵢ|, then the largest claim of every expert and the one at its density.

    The sample is kept over the first round: what is selected on depends on the extents.
    """

    def __init__(self, job: TensorJob, parameters: Sequence[PcbParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._experts = range(len(job.inputs))
        self._density = [each.density for each in parameters]
        pairs = sorted({(i, d) for each in self._density for i, d in enumerate(each)})
        limit = INSIDE_LIMIT // max(1, len(pairs))
        self._thresholds = {
            pair: ClaimThreshold(job.arithmetic, claims_kept(pair[1], job.count), job.count, limit)
            for pair in pairs
        }
        self._extents: list[Range] = []
        self._largest: list[float] = []
        self._sample: Sequence[Values] = ()
        self.wanted = True
        self.sample = max(each.sample for each in self._thresholds.values())

    def look(self, inputs: Sequence[Values]) -> None:
        """The measure keeps the sample, one (n,) for each expert, until the extents are known."""
        self._sample = inputs

    def observe(self, block: Block) -> Any:
        """First the extents of this block, then what it says to every open threshold."""
        if not self._extents:
            return [_extent(delta.abs()) for delta in self._arithmetic.tensors(block.inputs)]
        claims = self._claims(block.inputs, {expert for expert, _ in self._open()})
        return (
            {expert: float(each.max()) for expert, each in claims.items()},
            {pair: self._thresholds[pair].observe(claims[pair[0]]) for pair in self._open()},
        )

    def absorb(self, observations: Sequence[Any]) -> None:
        """Take one round in."""
        if not self._extents:
            self._extents = [
                (min(low for low, _ in parts), max(high for _, high in parts))
                for parts in zip(*observations, strict=True)
            ]
            self._bracket()
            return
        if not self._largest:
            self._largest = [max(most[i] for most, _ in observations) for i in self._experts]
        for pair in self._open():
            self._thresholds[pair].absorb([seen[pair] for _, seen in observations])
        self.wanted = bool(self._open())

    def at(self, block: Block, coefficient: int) -> list[Tensor]:
        """Every expert's share in this block: its claims, from the threshold to the largest brought
        to [0, 1]; 0 below."""
        claims = self._claims(block.inputs, set(self._experts))
        shares: list[Tensor] = []
        for expert, density in enumerate(self._density[coefficient]):
            least, most = self._thresholds[expert, density].value, self._largest[expert]
            assert least is not None
            if most > least:
                shares.append(claims[expert].sub_(least).clamp_min_(0).div_(most - least))
            else:
                shares.append((claims[expert] >= most).to(claims[expert].dtype))
        return shares

    def _open(self) -> list[tuple[int, float]]:
        return [pair for pair, each in self._thresholds.items() if each.value is None]

    def _bracket(self) -> None:
        if self._sample:
            claims = self._claims(self._sample, set(self._experts))
            for (expert, _), threshold in self._thresholds.items():
                threshold.look(claims[expert])
            self._sample = ()

    def _claims(self, inputs: Sequence[Values], experts: set[int]) -> dict[int, Tensor]:
        deltas = self._arithmetic.tensors(inputs)
        whole = deltas[0].double()
        for delta in deltas[1:]:
            whole.add_(delta)
        return {
            i: claim(self._arithmetic, deltas[i], whole, self._extents[i], len(deltas))
            for i in sorted(experts)
        }


def claims_kept(density: float, count: int) -> int:
    """The rank from the top of the claim that counts as zero: n − ⌊(1 − density) n⌋."""
    return max(1, count - int((1 - density) * count))


def _extent(magnitude: Tensor) -> Range:
    least, most = magnitude.aminmax()
    return float(least), float(most)


@merge_method(
    "pcb",
    parameters=PcbParameters,
    sees="task_vectors",
    span="element",
    family="weighted",
    source="arXiv:2410.02396",
    measure=ClaimMeasure,
)
def pcb(
    deltas: Sequence[Values],
    shares: list[Tensor],
    parameters: PcbParameters,
    arithmetic: Arithmetic,
) -> Tensor:
    """δ = λ Σ wᵢ sᵢ δᵢ / Σ sᵢ, sᵢ being how strong the claim βᵢ of expert i to an entry is.

    Du et al. 2024, "Parameter competition balancing for model merging" (PCB-Merging),
    https://arxiv.org/abs/2410.02396. βᵢ = exp(n · minmax(|δᵢ|)²) · tanh(δᵢ Σⱼ δⱼ); s is β, raised
    to the value at its top `density`, then brought to [0, 1]: the weakest kept claim and all below
    it get 0. The paper has one λ for each expert: `weight`. It takes minima, maxima and quantiles
    over the whole flattened model, we take them over each tensor; its code first clips the 0.01 %
    smallest and largest |δ|, we do not. Where all claims kept are equal, each counts as 1.
    mergekit has no such method.

    Blocks and shares are (n,), one of each for each expert; the result is (n,).
    """
    merged = shares[0].new_zeros(shares[0].shape)
    divisor = merged.clone()
    tensors = arithmetic.tensors(deltas)
    for delta, weight, share in zip(tensors, parameters.weight, shares, strict=True):
        merged.add_((delta * weight).mul_(share))
        divisor.add_(share)
    merged.div_(divisor.clamp_min_(LEAST))
    return merged.mul_(parameters.lambda_) if parameters.lambda_ != 1 else merged
