"""passthrough: one checkpoint as it is, or scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.methods.parameters import per_input
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PassthroughParameters:
    """`scale` multiplies; with filters it silences single projections."""

    scale: tuple[float, ...] = per_input("scale", 1.0, "what the checkpoint is multiplied by")


@merge_method(
    "passthrough",
    parameters=PassthroughParameters,
    inputs="checkpoints",
    span="element",
    family="basic",
    source="https://github.com/arcee-ai/mergekit#passthrough",
    arrays=True,
    base="optional",
    exactly=1,
)
def passthrough(
    checkpoints: Sequence[Tensor], statistics: None, parameters: PassthroughParameters
) -> Tensor:
    """θ' = scale · θ, for exactly one checkpoint."""
    return checkpoints[0] * parameters.scale[0]
