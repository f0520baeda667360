"""The weights of a window over a training run: what a schedule gives each of its steps.

Let s₀ < … < s_k be the window's steps, Δ = (s_k − s₀) / k their mean spacing, and
u_j = (s_j − s₀) / ((k + 1) Δ), u_{k+1} = 1. A step stands for the stretch of the run from it to the
next one (the newest for Δ), and its weight is the schedule's density over that stretch:

    c_j = F(u_{j+1}) − F(u_j)

    uniform          F(u) = u
    linear           F(u) = u ((k + 1) u + 1) / (k + 2)
    one_minus_sqrt   F(u) = √u
    cosine           F(u) = (1 − cos πu) / 2
    ema              F(u) = (β^((k+1)(1−u)) − β^(k+1)) / (1 − β^(k+1))

Where the spacing is even, these are the weights of the literature: 1/(k+1); ∝ j + 1; those whose
decay w_i = Σ_{j≥i} c_j is 1 − √(i/(k+1)) or ½ (1 + cos(πi/(k+1))); ∝ β^(k−j). So an average is a
decay of the learning rate, and the reverse: 1 − F is its schedule (WSM, arXiv:2507.17634).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

UNIFORM, LINEAR, ONE_MINUS_SQRT, COSINE, EMA = (
    "uniform", "linear", "one_minus_sqrt", "cosine", "ema",
)  # fmt: skip
SCHEDULES = (UNIFORM, LINEAR, ONE_MINUS_SQRT, COSINE, EMA)
SUM_TOLERANCE = 1e-6
"""How far weights that a recipe lists may be from a sum of one: of decimals that were cut off."""


def schedule_weights(schedule: str, steps: Sequence[int], beta: float = 0.0) -> tuple[float, ...]:
    """Return the weight of each step, (k + 1,); they sum to one.

    `steps` rise. `beta`, in [0, 1), is that of `ema`: what is left of a weight after Δ.
    """
    count = len(steps)
    if count == 1:
        return (1.0,)
    places = _places(steps)
    stretches = itertools.pairwise(places)
    if schedule == EMA:
        return tuple(_ema(beta, count, *each) for each in stretches)
    if schedule in (UNIFORM, LINEAR):  # exact until the end: 1/(k+1) is what it is
        rational = _linear if schedule == LINEAR else _uniform
        return tuple(float(rational(end, count) - rational(at, count)) for at, end in stretches)
    curve: Callable[[float], float] = math.sqrt if schedule == ONE_MINUS_SQRT else _cosine
    return tuple(curve(float(end)) - curve(float(at)) for at, end in stretches)


def decay_of(weights: Sequence[float]) -> tuple[float, ...]:
    """Return the decay that an average is, (k,): w_i = Σ_{j≥i} c_j for the updates i = 1 … k."""
    return tuple(math.fsum(weights[at:]) for at in range(1, len(weights)))


def weights_of_decay(decay: Sequence[float]) -> tuple[float, ...]:
    """Return the weights, (k + 1,), whose average is a decay w_1 … w_k of the updates."""
    ends = (1.0, *decay, 0.0)
    return tuple(ends[at] - ends[at + 1] for at in range(len(ends) - 1))


def sum_problem(weights: Sequence[float]) -> str | None:
    """Say that weights do not sum to one, with their sum; None where they do."""
    total = math.fsum(weights)
    if abs(total - 1) <= SUM_TOLERANCE * (1 + 1e-9):
        return None
    return f"sum to {total:.9g}, and an average's weights sum to 1; give all of them, or a schedule"


def of_sum_one(weights: Sequence[float]) -> tuple[float, ...]:
    """Return weights that sum to one but for decimals that were cut off, divided by their sum."""
    total = math.fsum(weights)
    return tuple(weights) if total == 1 else tuple(each / total for each in weights)


def _places(steps: Sequence[int]) -> list[Fraction]:
    """Where the stretches begin in [0, 1], and the end of the last, (k + 2,)."""
    k, first, span = len(steps) - 1, steps[0], steps[-1] - steps[0]
    return [*(Fraction(k * (each - first), (k + 1) * span) for each in steps), Fraction(1)]


def _uniform(place: Fraction, _: int) -> Fraction:
    return place


def _linear(place: Fraction, count: int) -> Fraction:
    return place * (count * place + 1) / (count + 1)


def _cosine(place: float) -> float:
    return math.sin(math.pi * place / 2) ** 2


def _ema(beta: float, count: int, at: Fraction, end: Fraction) -> float:
    """The share of one stretch, by powers that stay exact for a beta next to one."""
    if beta == 0:
        return 1.0 if end == 1 else 0.0
    rate = math.log(beta)
    share = math.expm1(float(count * (end - at)) * rate) / math.expm1(count * rate)
    return math.exp(float(count * (1 - end)) * rate) * share
