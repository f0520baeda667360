"""expo: go on in the direction from a fine-tuned model to its aligned version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.methods.parameters import shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


@dataclass(frozen=True)
class ExpoParameters:
    """`extrapolation`: how far beyond the expert, as a share of the way from the base to it."""

    extrapolation: float = shared(
        "extrapolation",
        float,
        0.1,
        "how far beyond the expert: 0 gives the expert, 1 doubles its task vector",
        at_least=0,
    )


@merge_method(
    "expo",
    parameters=ExpoParameters,
    sees="task_vectors",
    span="element",
    family="basic",
    source="arXiv:2404.16792",
    arrays=True,
    exactly=1,
)
def expo(
    deltas: Sequence[Values], _: None, parameters: ExpoParameters, arithmetic: Arithmetic
) -> Values:
    """δ = (1 + extrapolation) · δ₁: the base is the fine-tuned (SFT) model, the expert its aligned
    version.

    Zheng et al. 2024, "Weak-to-strong extrapolation expedites alignment" (ExPO),
    https://arxiv.org/abs/2404.16792: θ = θ_aligned + α (θ_aligned − θ_sft), our `extrapolation`
    being their α, which they choose on a development set, mostly from 0.1 to 0.5. It is
    task_arithmetic with one expert of weight 1 + α. mergekit has no such method.

    The one block is (n,); the result is (n,).
    """
    return deltas[0] * (1 + parameters.extrapolation)
