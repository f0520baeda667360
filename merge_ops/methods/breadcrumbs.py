"""breadcrumbs and breadcrumbs_ties: drop the largest entries and the many small ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import TensorJob
from merge_ops.measures.trimmed_blocks import TrimmedBlock
from merge_ops.measures.trimming import RankRange, TrimMeasure
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.sparse_parameters import (
    rescale_after_trimming,
    trim_scope,
    trimmed_globally,
)
from merge_ops.methods.task_arithmetic import scaled_sum
from merge_ops.methods.ties import disjoint_merge
from merge_ops.methods.weight_sums import sum_of_task_vectors, sums_that_agree

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class BreadcrumbsParameters:
    """The `gamma` largest entries are dropped as outliers, then the smallest down to `density`."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the expert's share")
    density: tuple[float, ...] = per_input(
        "density", 1.0, "the share of entries kept", above=0, at_most=1
    )
    gamma: tuple[float, ...] = per_input(
        "gamma", 0.01, "the share of largest entries dropped", at_least=0, at_most=1
    )
    normalize: bool = shared("normalize", bool, False, "divide by the sum of the weights")
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")
    rescale: str = rescale_after_trimming()
    trim: str = trim_scope()


def rank_range(density: float, gamma: float, count: int) -> RankRange:
    """⌊d n⌋ entries below the ⌊γ n⌋ largest; where d + γ > 1 fewer of those, as mergekit does."""
    if density >= 1:
        return count, 0
    kept = int(density * count)
    k = min(count, kept + int(gamma * count))
    return k, k - kept


def _measure(job: TensorJob, parameters: Sequence[BreadcrumbsParameters]) -> TrimMeasure:
    ranges = [
        [rank_range(d, g, job.count) for d, g in zip(each.density, each.gamma, strict=True)]
        for each in parameters
    ]
    return TrimMeasure(job, ranges, [each.rescale for each in parameters])


@merge_method(
    "breadcrumbs",
    parameters=BreadcrumbsParameters,
    sees="trimmed",
    span="element",
    family="subspace",
    source="arXiv:2312.06795",
    arrays=True,
    measure=_measure,
    check=sum_of_task_vectors,
    model_wide=trimmed_globally("density", "gamma", "rescale"),
    unused=("int8_mask",),
)
def breadcrumbs(
    deltas: Sequence[Values],
    trimmed: list[TrimmedBlock],
    parameters: BreadcrumbsParameters,
    arithmetic: Arithmetic,
) -> WeightedSum:
    """δ = λ Σ wᵢ δ̂ᵢ, δ̂ without its ⌊γ n⌋ largest entries and then the ⌊d n⌋ largest of the rest.

    Davari & Belilovsky 2023, "Model Breadcrumbs", https://arxiv.org/abs/2312.06795; per tensor,
    or over all tensors together with `trim: global`. Equal magnitudes count in the order of their
    index.

    Blocks are (n,), one whole and one trimmed for each expert; the result is (n,).
    """
    return scaled_sum(trimmed, parameters.weight, parameters.normalize, parameters.lambda_)


@merge_method(
    "breadcrumbs_ties",
    parameters=BreadcrumbsParameters,
    sees="trimmed",
    span="element",
    family="subspace",
    source="arXiv:2312.06795",
    arrays=True,
    measure=_measure,
    check=sums_that_agree,
    model_wide=trimmed_globally("density", "gamma", "rescale"),
    unused=("int8_mask",),
)
def breadcrumbs_ties(
    deltas: Sequence[Values],
    trimmed: list[TrimmedBlock],
    parameters: BreadcrumbsParameters,
    arithmetic: Arithmetic,
) -> Values:
    """The entries that breadcrumbs keeps, merged by sign election as ties does.

    Blocks are (n,), one whole and one trimmed for each expert; the result is (n,).
    """
    return disjoint_merge(
        arithmetic, trimmed, parameters.weight, parameters.normalize, parameters.lambda_
    )
