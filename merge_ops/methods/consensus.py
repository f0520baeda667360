"""consensus_ta and consensus_ties: keep of a merged task vector what several experts agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.errors import Fault
from merge_ops.measures.measure import TensorJob
from merge_ops.measures.thresholds import kept_count
from merge_ops.measures.trimmed_blocks import TrimmedBlock
from merge_ops.measures.trimming import NONE, TrimMeasure
from merge_ops.methods.parameters import per_input, shared
from merge_ops.methods.registry import merge_method
from merge_ops.methods.task_arithmetic import scaled_sum
from merge_ops.methods.ties import disjoint_merge
from merge_ops.methods.weight_sums import first_of, sum_of_task_vectors, sums_that_agree

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values


def _tall_lambda() -> tuple[float, ...]:
    meaning = "how near the merge must come to an expert's entry to serve it; the paper: 0.2 to 0.6"
    return per_input("tall_lambda", 0.4, meaning, at_least=0)


def _consensus() -> int:
    return shared("consensus", int, 2, "how many experts an entry must serve", at_least=1)


@dataclass(frozen=True)
class ConsensusTaParameters:
    """`weight`, `normalize` and `lambda` are those of task_arithmetic."""

    weight: tuple[float, ...] = per_input("weight", 1.0, "the expert's share")
    tall_lambda: tuple[float, ...] = _tall_lambda()
    consensus: int = _consensus()
    normalize: bool = shared("normalize", bool, False, "divide by the sum of the weights")
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


@dataclass(frozen=True)
class ConsensusTiesParameters:
    """`weight`, `density`, `normalize` and `lambda` are those of ties."""

    weight: tuple[float, ...] = per_input("weight", 1.0, "the expert's share")
    density: tuple[float, ...] = per_input(
        "density", 1.0, "the share of entries kept", above=0, at_most=1
    )
    tall_lambda: tuple[float, ...] = _tall_lambda()
    consensus: int = _consensus()
    normalize: bool = shared(
        "normalize", bool, False, "divide by the weights of the experts that agree"
    )
    lambda_: float = shared("lambda", float, 1.0, "the scale of the merged task vector")


def _check(parameters: ConsensusTaParameters | ConsensusTiesParameters) -> Fault | None:
    """More experts than there are never agree: only the base would be left."""
    wanted, there = parameters.consensus, len(parameters.weight)
    if wanted <= there:
        return None
    return Fault(
        "parameters.consensus",
        f"is {wanted}, but {there} {'expert is' if there == 1 else 'experts are'} merged;"
        f" it must be at most {there}",
    )


def _measure(job: TensorJob, parameters: Sequence[ConsensusTiesParameters]) -> TrimMeasure:
    ranges = [[(kept_count(d, job.count), 0) for d in each.density] for each in parameters]
    return TrimMeasure(job, ranges, [NONE for _ in parameters])


@merge_method(
    "consensus_ta",
    parameters=ConsensusTaParameters,
    sees="task_vectors",
    span="element",
    family="subspace",
    source="arXiv:2405.07813",
    check=first_of(_check, sum_of_task_vectors),
)
def consensus_ta(
    deltas: Sequence[Values], _: None, parameters: ConsensusTaParameters, arithmetic: Arithmetic
) -> Tensor:
    """δ = λ τ where at least `consensus` experts have |δᵢ| ≥ tall_lambdaᵢ · |τ − δᵢ|, else 0.

    Wang et al. 2024, "Localizing task information for improved model merging and compression" (TALL
    masks), https://arxiv.org/abs/2405.07813. τ = Σ wᵢδᵢ, as task_arithmetic merges. The masks are
    made with τ before it is scaled by λ; the task vectors in them are whole, without weights.

    Blocks are (n,), one for each expert; the result is (n,).
    """
    whole = scaled_sum(deltas, parameters.weight, parameters.normalize, 1.0)
    return _agreed(whole.made(arithmetic), deltas, parameters, arithmetic)


@merge_method(
    "consensus_ties",
    parameters=ConsensusTiesParameters,
    sees="trimmed",
    span="element",
    family="subspace",
    source="arXiv:2405.07813",
    measure=_measure,
    check=first_of(_check, sums_that_agree),
)
def consensus_ties(
    deltas: Sequence[Values],
    trimmed: list[TrimmedBlock],
    parameters: ConsensusTiesParameters,
    arithmetic: Arithmetic,
) -> Tensor:
    """consensus_ta with τ as ties merges it: trimmed, signs elected, the agreeing ones added.

    Wang et al. 2024, https://arxiv.org/abs/2405.07813. The task vectors of the masks are not
    trimmed. Unlike in ties, `normalize` is off by default: a sum, to be scaled by λ.

    Blocks are (n,), one whole and one trimmed for each expert; the result is (n,).
    """
    whole = disjoint_merge(arithmetic, trimmed, parameters.weight, parameters.normalize, 1)
    return _agreed(whole, deltas, parameters, arithmetic)


def _agreed(
    whole: Values,
    deltas: Sequence[Values],
    parameters: ConsensusTaParameters | ConsensusTiesParameters,
    arithmetic: Arithmetic,
) -> Tensor:
    """λ · `whole` where enough experts agree with it, 0 elsewhere; blocks of equal shapes.

    The merged block is written over.
    """
    merged = arithmetic.tensor(whole)
    votes = merged.new_zeros(merged.shape)
    for delta, limit in zip(arithmetic.tensors(deltas), parameters.tall_lambda, strict=True):
        votes.add_(delta.abs() >= (merged - delta).abs_().mul_(limit))
    merged.mul_(votes >= parameters.consensus)
    return merged.mul_(parameters.lambda_) if parameters.lambda_ != 1 else merged
