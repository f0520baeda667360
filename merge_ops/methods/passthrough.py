"""passthrough: one checkpoint as it is, or scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.methods.parameters import per_input
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class PassthroughParameters:
    """`scale` multiplies; with filters it silences single projections."""

    scale: tuple[float, ...] = per_input("scale", 1.0, "what the checkpoint is multiplied by")


@merge_method(
    "passthrough",
    parameters=PassthroughParameters,
    sees="checkpoints",
    span="element",
    family="basic",
    source="https://github.com/arcee-ai/mergekit#passthrough",
    arrays=True,
    base="optional",
    exactly=1,
)
def passthrough(
    checkpoints: Sequence[Values],
    _: None,
    parameters: PassthroughParameters,
    arithmetic: Arithmetic,
) -> Values:
    """θ' = scale · θ, for exactly one checkpoint.

    The one block is (n,); the result is (n,).
    """
    return checkpoints[0] * parameters.scale[0]
