"""widen: task vectors weighed column by column, by how far its length and direction moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.checkpoints.names.tensor_names import is_embedding
from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.rows import column_sums, row_sums
from merge_ops.measures.spectrum import runs
from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Arithmetic, Values


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
        self._arithmetic = job.arithmetic
        self._parameters = parameters
        self._by_rows = is_embedding(job.tensor)
        self._changes: Sequence[Tensor] = ()
        self.wanted = True

    def observe(self, block: Block) -> Sequence[Tensor]:
        """Significances, shape (experts, columns): of lengths and directions, or of entries."""
        import torch

        base, *experts = tensors = self._arithmetic.tensors(block.inputs)
        if base.dim() != 2:
            return [torch.stack([(expert - base).abs() for expert in experts])]
        matrices = [tensor.mT if self._by_rows else tensor for tensor in tensors]
        return [_ranks(changes) for changes in column_changes(matrices)]

    def absorb(self, observations: Sequence[Sequence[Tensor]]) -> None:
        """The measure keeps the significances of the one block, which is the whole tensor.

        Each has shape (experts, columns), or (experts, …) where the tensor is no matrix.
        """
        (self._changes,) = observations
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> list[Tensor]:
        """Each expert's shares, in a shape that multiplies its task vector."""
        parameters = self._parameters[coefficient]
        scores = [_scores(self._arithmetic, each, parameters) for each in self._changes]
        shares = sum(scores[1:], scores[0]) / len(scores)
        across = len(block.inputs[0].shape) == 2 and self._by_rows
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
            sums[0, position] += column_sums(each * each)[0]
            sums[1, position] += column_sums(each * base)[0]
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


def _scores(arithmetic: Arithmetic, significance: Tensor, parameters: WidenParameters) -> Tensor:
    """Softmax over the experts; what is above the ratio times its model's mean has one score.

    Significances, shape (experts, …), none negative, to scores of that shape.
    """
    import torch

    flat = significance.flatten(1)
    mean = row_sums(arithmetic, arithmetic.own(flat)) / flat.shape[1]
    bar = torch.as_tensor(mean * parameters.above_average_value_ratio).to(significance)
    important = significance > bar.view(-1, *[1] * (significance.dim() - 1))
    powers = significance.double() - significance.amax(dim=0).double()
    arithmetic.exponential(powers)
    whole = powers[0].clone()
    for power in powers[1:]:
        whole.add_(power)
    scores = powers.div_(whole).float()
    return scores.masked_fill_(important, parameters.score_calibration_value)


@merge_method(
    "widen",
    parameters=WidenParameters,
    sees="checkpoints",
    span="tensor",
    family="weighted",
    source="arXiv:2408.03092",
    measure=ChangeMeasure,
    at_least=2,
)
def widen(
    checkpoints: Sequence[Values],
    shares: list[Tensor],
    parameters: WidenParameters,
    arithmetic: Arithmetic,
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
    base, *experts = arithmetic.tensors(checkpoints)
    merged = base.clone()
    for expert, share in zip(experts, shares, strict=True):
        merged.add_((expert - base).mul_(share))
    return merged
