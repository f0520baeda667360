"""nearswap: moves the base towards an expert where the two are close."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.methods.parameters import REQUIRED, shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values

LEAST = 1e-6  # mergekit's bound of a divisor


@dataclass(frozen=True)
class NearswapParameters:
    """`t`: differences up to it are taken over whole."""

    t: float = shared("t", float, REQUIRED, "the difference that is taken over whole", at_least=0)


@merge_method(
    "nearswap",
    parameters=NearswapParameters,
    sees="task_vectors",
    span="element",
    family="basic",
    source="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
    arrays=True,
    exactly=1,
)
def nearswap(
    deltas: Sequence[Values], _: None, parameters: NearswapParameters, arithmetic: Arithmetic
) -> Values:
    """δ' = ω δ with ω = min(1, t / max(|δ|, 1e-6)): δ up to t whole, larger ones cut to ±t.

    alchemonaut 2024. mergekit writes it as ω b + (1 − ω) a, which is a + ω (b − a).

    The one block is (n,); the result is (n,).
    """
    delta = deltas[0]
    share = 1.0 / arithmetic.at_least(abs(delta), LEAST)
    share *= parameters.t
    share = arithmetic.at_most(share, 1.0)
    share *= delta
    return share
