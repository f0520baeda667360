"""ties: trim, elect sign, disjoint merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.kernels import loops as kernels
from merge_ops.measures.cuts import Cut, blocks_of, made
from merge_ops.measures.measure import TensorJob
from merge_ops.measures.selection import kept_count
from merge_ops.measures.trimming import (
    BandMeasure,
    rescale_after_trimming,
    trim_scope,
    trimmed_globally,
)
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TiesParameters:
    """`density` of each task vector is kept by magnitude; `normalize` makes the sum a mean."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the expert's share")
    density: tuple[float, ...] = per_input(
        "density", 1.0, "the share of entries kept", above=0, at_most=1
    )
    normalize: bool = shared(
        "normalize", bool, True, "divide by the weights of the experts that agree"
    )
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")
    rescale: str = rescale_after_trimming()
    trim: str = trim_scope()


def _measure(job: TensorJob, parameters: Sequence[TiesParameters]) -> BandMeasure:
    bands = [[(kept_count(d, job.count), 0) for d in each.density] for each in parameters]
    return BandMeasure(job, bands, [each.rescale for each in parameters])


@merge_method(
    "ties",
    parameters=TiesParameters,
    inputs="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2306.01708",
    arrays=True,
    measure=_measure,
    model_wide=trimmed_globally("density", "rescale"),
    unused=("int8_mask",),
)
def ties(deltas: Sequence[Tensor], statistics: list[Cut], parameters: TiesParameters) -> Tensor:
    """Trim each δᵢ to its largest entries, elect a sign per element, average those that agree, × λ.

    Yadav et al. 2023, "TIES-Merging", https://arxiv.org/abs/2306.01708. As in mergekit, and unlike
    the paper: the k = max(1, ⌊density · n⌋) largest |δ| are kept per tensor, the weights take part
    in the election, a sum of zero elects plus, and the mean is weighted. With `trim: global` n and
    k count all merged tensors of an expert together, as in the paper; all inputs are then read
    twice. Equal magnitudes at the threshold are kept from the lowest index on, in file order.
    """
    return disjoint_merge(statistics, parameters.weight, parameters.normalize, parameters.lambda_)


def elected_sign(parts: Sequence[Tensor]) -> Tensor:
    """The sign of Σ partᵢ, entry by entry, as +1 and −1; plus where the sum is zero."""
    import torch

    total = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()
    for part in parts[2:]:
        total.add_(part)
    # A sum is −0 only where every part is zero, and there the sign does not matter.
    return torch.copysign(total.new_ones(()), total)


def disjoint_merge(
    deltas: Sequence[Tensor | Cut], weight: Sequence[float], normalize: bool, lambda_: float
) -> Tensor:
    """λ Σ of the wᵢδᵢ that have the elected sign, divided by their Σ wᵢ when `normalize`.

    The sign is that of Σ wᵢδᵢ, plus where that is zero; zeros never agree; a divisor of zero
    counts as one. Flat float32 tensors of equal length in, a new one out.
    """
    if normalize and weight[0] > 0 and len(set(weight)) == 1:
        weight = [1.0] * len(weight)  # equal weights cancel
    found = kernels.disjoint_merge(
        *blocks_of(deltas),
        weight,
        [1.0] * len(weight),
        weight,
        min(weight) if normalize else None,
        lambda_,
    )
    if found is not None:
        return found
    import torch

    shares = [
        delta if share == 1 else delta * share
        for delta, share in zip(made(deltas), weight, strict=True)
    ]
    elected = elected_sign(shares)
    merged = torch.zeros_like(elected)
    divisor = torch.zeros_like(elected)
    for part, share in zip(shares, weight, strict=True):
        agreeing = (part * elected).clamp_min_(0)
        merged.add_(agreeing)
        if normalize:
            divisor.add_(agreeing.sign_(), alpha=share)
    if normalize:
        least = min(weight)
        # Where nobody agrees the sum is zero and any divisor serves; the clamp is the quick way.
        merged.div_(
            divisor.clamp_min_(least) if least > 0 else divisor.masked_fill_(divisor == 0, 1)
        )
    merged.mul_(elected)
    return merged.mul_(lambda_) if lambda_ != 1 else merged
