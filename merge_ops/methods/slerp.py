"""slerp: spherical interpolation between two checkpoints, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from merge_ops.kernels.elementary import arc_cosine, sine
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import LEAF, Block, Measure, TensorJob, total
from merge_ops.methods.parameters import REQUIRED, shared
from merge_ops.methods.registry import merge_method

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values

NEARLY_PARALLEL = 0.9995
NO_NORM = 1e-8


@dataclass(frozen=True)
class SlerpParameters:
    """`t`: 0 is the base model, 1 the other one."""

    t: float = shared("t", float, REQUIRED, "0 gives the base model, 1 the other one")


@dataclass(frozen=True)
class Angle:
    """The shares of the two tensors for one t."""

    first: float
    second: float


class AngleMeasure(Measure):
    """Σa², Σb² and Σab of one tensor: one round, whatever the number of coefficients."""

    def __init__(self, job: TensorJob, parameters: Sequence[SlerpParameters]) -> None:
        self.wanted = True
        self._arithmetic = job.arithmetic
        self._t = [each.t for each in parameters]
        self._shares: list[Angle] = []

    def observe(self, block: Block) -> tuple[NDArray[np.float64], ...]:
        """Leaf sums of a², b² and ab."""
        first, second = block.inputs
        pairs = (first, first), (second, second), (first, second)
        return tuple(self._arithmetic.leaf_sums(*pair, LEAF) for pair in pairs)

    def absorb(self, observations: Sequence[tuple[NDArray[np.float64], ...]]) -> None:
        """The leaf sums, each of shape (leaves,), give the two shares for every t."""
        aa, bb, ab = (total([seen[k] for seen in observations]) for k in range(3))
        norm_a = math.sqrt(aa) if math.sqrt(aa) > NO_NORM else 1.0
        norm_b = math.sqrt(bb) if math.sqrt(bb) > NO_NORM else 1.0
        cosine = max(-1.0, min(1.0, ab / (norm_a * norm_b)))
        self._shares = [_shares(t, cosine) for t in self._t]
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> Angle:
        """The same shares for every block."""
        return self._shares[coefficient]


def _shares(t: float, cosine: float) -> Angle:
    if abs(cosine) > NEARLY_PARALLEL:
        return Angle(1 - t, t)
    angle = arc_cosine(cosine)
    return Angle(sine((1 - t) * angle) / sine(angle), sine(t * angle) / sine(angle))


@merge_method(
    "slerp",
    parameters=SlerpParameters,
    sees="checkpoints",
    span="element",
    family="basic",
    source="https://en.wikipedia.org/wiki/Slerp",
    arrays=True,
    measure=AngleMeasure,
    exactly=2,
)
def slerp(
    checkpoints: Sequence[Values],
    angle: Angle,
    parameters: SlerpParameters,
    arithmetic: Arithmetic,
) -> WeightedSum:
    """θ = [sin((1−t)Ω) a + sin(tΩ) b] / sin Ω, Ω the angle between a and b, per tensor.

    Shoemake 1985. The raw vectors are combined, as in mergekit: norms enter the angle only. Where
    |cos Ω| > 0.9995 it is (1−t) a + t b; a vector shorter than 1e-8 counts as orthogonal.

    Both blocks are (n,); the result is (n,).
    """
    return WeightedSum(checkpoints, (angle.first, angle.second))
