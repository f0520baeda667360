"""widen: task vectors weighed column by column, by how far its length and direction moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.checkpoints.tensor_names import is_embedding
from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.spectrum import runs
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class WidenParameters:
    """Which changes count as important, and what their share then is; names as the authors'."""

    above_average_value_ratio: float = shared(
        "above_average_value_ratio",
        float,
        1.0,
        "changes that rank above so many times the mean are important",
        at_least=0,
    )
    score_calibration_value: float = shared(
        "score_calibration_value", float, 1.0, "the share of an important change", at_least=0
    )


class ChangeMeasure(Measure):
    """Each expert's changes, and from them one share for every column, or entry of a vector."""

    def __init__(self, job: TensorJob, parameters: Sequence[WidenParameters]) -> None:
        self._parameters = parameters
        self._by_rows = is_embedding(job.tensor)
        self._changes: Sequence[Tensor] = ()
        self.wanted = True

    def observe(self, block: Block) -> Sequence[Tensor]:
        """Significances, shape (experts, columns): of lengths and directions, or of entries."""
        import torch

        base, *experts = block.inputs
        if base.dim() != 2:
            return [torch.stack([(each - base).abs() for each in experts])]
        matrices = [each.mT if self._by_rows else each for each in block.inputs]
        return [_ranks(each) for each in column_changes(matrices)]

    def absorb(self, observations: Sequence[Sequence[Tensor]]) -> None:
        """The whole tensor is one block."""
        (self._changes,) = observations
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[Tensor]:
        """Each expert's shares, in a shape that multiplies its task vector."""
        parameters = self._parameters[coefficient]
        scores = [_scores(each, parameters) for each in self._changes]
        shares = sum(scores[1:], scores[0]) / len(scores)
        across = block.inputs[0].dim() == 2 and self._by_rows
        return [each.unsqueeze(-1) if across else each for each in shares]


def column_changes(matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """|mᵢ − m₀| and 1 − cos of every column, in float64: two of shape (experts, columns).

    `matrices` are the base and the experts. A column of zeros has no direction: its cosine is 0
    with any other, 1 with another of zeros.
    """
    import torch

    rows, columns = matrices[0].shape
    sums = matrices[0].new_zeros((2, len(matrices), columns), dtype=torch.float64)
    for run in runs(rows, columns):
        base, *experts = (each[run].double() for each in matrices)
        for position, each in enumerate((base, *experts)):
            sums[0, position] += each.square().sum(0)
            sums[1, position] += (each * base).sum(0)
    lengths = sums[0].sqrt()
    both = lengths[0] * lengths[1:]
    same = ((lengths[0] == 0) & (lengths[1:] == 0)).to(both.dtype)
    cosines = torch.where(both > 0, sums[1, 1:] / both.clamp_min(1e-300), same)
    return (lengths[1:] - lengths[0]).abs(), 1 - cosines


def _ranks(changes: Tensor) -> Tensor:
    """Each column's place among those of its model, from 0 for the least, over their number."""
    import torch

    order = torch.argsort(changes, dim=1, stable=True)
    count = changes.shape[1]
    places = (torch.arange(count, device=order.device, dtype=torch.float32) / count).expand(
        changes.shape
    )
    return torch.zeros_like(places.contiguous()).scatter_(1, order, places)


def _scores(significance: Tensor, parameters: WidenParameters) -> Tensor:
    """Softmax over the experts; what is above the ratio times its model's mean has one score."""
    import torch

    mean = significance.flatten(1).mean(1, dtype=torch.float64)
    bar = (mean * parameters.above_average_value_ratio).float()
    important = significance > bar.view(-1, *[1] * (significance.dim() - 1))
    scores = torch.softmax(significance, dim=0)
    return scores.masked_fill_(important, parameters.score_calibration_value)


@merge_method(
    "widen",
    parameters=WidenParameters,
    inputs="checkpoints",
    span="tensor",
    family="weighted",
    source="arXiv:2408.03092",
    measure=ChangeMeasure,
    at_least=2,
)
def widen(
    checkpoints: Sequence[Tensor], statistics: list[Tensor], parameters: WidenParameters
) -> Tensor:
    """θ = θ₀ + Σ sᵢ ⊙ (θᵢ − θ₀), sᵢ the mean of two scores of each column: length and direction.

    Yu et al. 2024, "Extend Model Merging from Fine-Tuned to Pre-Trained Large Language Models via
    Weight Disentanglement", https://arxiv.org/abs/2408.03092. A column's |mᵢ − m₀| and
    1 − cos(θᵢ, θ₀) are ranked among the columns of its matrix (0 to 1, equals by their index), and
    a score is the softmax of these ranks over the experts, or `score_calibration_value` where the
    rank is above `above_average_value_ratio` times the mean rank. As in the authors' code columns
    are input dimensions, and tokens of an embedding; vectors are scored entry by entry on |δᵢ|,
    unranked. Lengths and cosines are in float64, where theirs are in the dtype of the model.
    """
    import torch

    base, *experts = checkpoints
    merged = base.clone()
    for expert, share in zip(experts, statistics, strict=True):
        torch.addcmul(merged, expert - base, share, out=merged)
    return merged
