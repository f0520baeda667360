"""ties: trim, elect sign, disjoint merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.measures.measure import TensorJob
from merge_ops.measures.thresholds import kept_count
from merge_ops.measures.trimmed_blocks import TrimmedBlock, blocks_of
from merge_ops.measures.trimming import TrimMeasure
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.sparse_parameters import (
    rescale_after_trimming,
    trim_scope,
    trimmed_globally,
)
from merge_ops.methods.weight_sums import sums_that_agree

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


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


def _measure(job: TensorJob, parameters: Sequence[TiesParameters]) -> TrimMeasure:
    ranges = [[(kept_count(d, job.count), 0) for d in each.density] for each in parameters]
    return TrimMeasure(job, ranges, [each.rescale for each in parameters])


@merge_method(
    "ties",
    parameters=TiesParameters,
    sees="trimmed",
    span="element",
    family="subspace",
    source="arXiv:2306.01708",
    arrays=True,
    measure=_measure,
    check=sums_that_agree,
    model_wide=trimmed_globally("density", "rescale"),
    unused=("int8_mask",),
)
def ties(
    deltas: Sequence[Values],
    trimmed: list[TrimmedBlock],
    parameters: TiesParameters,
    arithmetic: Arithmetic,
) -> Values:
    """Trim each δᵢ to its largest entries, elect a sign per element, average those that agree, × λ.

    Yadav et al. 2023, "TIES-Merging", https://arxiv.org/abs/2306.01708. As in mergekit, and unlike
    the paper: the k = max(1, ⌊density · n⌋) largest |δ| are kept per tensor, the weights take part
    in the election, a sum of zero elects plus, and the mean is weighted. With `trim: global` n and
    k count all merged tensors of an expert together, as in the paper; all inputs are then read
    twice. Equal magnitudes at the threshold are kept from the lowest index on, in file order.

    Blocks are (n,), one whole and one trimmed for each expert; the result is (n,).
    """
    return disjoint_merge(
        arithmetic, trimmed, parameters.weight, parameters.normalize, parameters.lambda_
    )


def disjoint_merge(
    arithmetic: Arithmetic,
    deltas: Sequence[Values | TrimmedBlock],
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
) -> Values:
    """λ Σ of the wᵢδᵢ that have the elected sign, divided by their Σ wᵢ when `normalize`.

    The sign is that of Σ wᵢδᵢ, plus where that is zero; zeros never agree; a divisor of zero
    counts as one. Blocks of equal shapes in, new values of that shape out.
    """
    if normalize and weight[0] > 0 and len(set(weight)) == 1:
        weight = [1.0] * len(weight)  # equal weights cancel
    least = min(weight) if normalize else None
    ones = [1.0] * len(weight)
    return arithmetic.disjoint_merge(*blocks_of(deltas), weight, ones, weight, least, lambda_)
