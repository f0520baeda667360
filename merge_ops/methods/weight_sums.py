"""Weights that cancel: what a method divides by must not be what rounding left of them.

A sum s of weights w amplifies every error of what is summed by Σ|w| / |s|. Products are rounded to
2⁻²⁴ of themselves: at a sum of 2⁻²⁰ Σ|w| that alone is a sixteenth of the result, and inputs that
were stored in bfloat16, good to 2⁻⁹, have left nothing in it. Weights as 0.5 and −0.499 are far
from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from merge_ops.errors import Fault

NEARLY_ZERO = 2.0**-20  # of the sum of the weights' magnitudes
NEAR_ZERO = 1e-8  # a sum of weights of task vectors below it divides by one: mergekit's bound
MOST_SUBSETS = 16  # experts of which all subsets are looked at: 65,536

Check = Callable[[Any], Fault | None]


def nearly_zero(weights: Sequence[float]) -> bool:
    """Return whether the weights sum to zero, or to so little of their sizes that it is none."""
    most = max(map(abs, weights))
    if most == 0:
        return True
    shares = [weight / most for weight in weights]  # sums of these do not overflow
    return abs(sum(shares)) <= NEARLY_ZERO * sum(map(abs, shares))


def first_of(*checks: Check) -> Check:
    """Return a check that asks each of these until one finds a fault."""

    def check(parameters: Any) -> Fault | None:
        return next((fault for each in checks if (fault := each(parameters)) is not None), None)

    return check


def sum_of_all(parameters: Any) -> Fault | None:
    """Find the fault of a mean of whole checkpoints: weights that sum to nearly zero."""
    if parameters.normalize and nearly_zero(parameters.weight):
        return _fault(parameters.weight, "normalize")
    return None


def sum_of_task_vectors(parameters: Any) -> Fault | None:
    """Find the fault of a mean of task vectors: weights that sum to nearly zero.

    A sum of exactly zero divides by one, as in mergekit.
    """
    weight = parameters.weight
    if not parameters.normalize or sum(weight) == 0:
        return None
    if nearly_zero(weight):
        return _fault(weight, "normalize")
    if abs(sum(weight)) < NEAR_ZERO:
        problem = (
            f"sums to {sum(weight):g} over the models ({list(weight)}), which is too little for"
            " `normalize` to divide by; write larger weights, only their ratio counts"
        )
        return Fault("parameters.weight", problem)
    return None


def sums_that_agree(parameters: Any) -> Fault | None:
    """Find the fault of a disjoint mean, whose divisor is the sum over those that agree.

    That may be any of them where signs differ. Zero divides by one, as in mergekit; a sum next to
    zero is a fault.
    """
    weight: Sequence[float] = parameters.weight
    if not parameters.normalize or min(weight) >= 0 or max(weight) <= 0:
        return None
    if nearly_zero(weight) and sum(weight) != 0:
        return _fault(weight, "normalize")
    some = _small_subset(weight)
    return _fault(some, "normalize", " where these agree") if some else None


def sum_of_directions(parameters: Any) -> Fault | None:
    """Find the fault of a mean of directions (multislerp): weights that sum to nearly zero."""
    weight = parameters.weight
    if parameters.normalize_weights and len(weight) > 1 and nearly_zero(weight):
        return _fault(weight, "normalize_weights")
    return None


def sum_of_two(parameters: Any) -> Fault | None:
    """Find the fault of nuslerp, which goes by a share of the sum.

    A sum of exactly zero goes half way, as in mergekit.
    """
    weight = parameters.weight
    if sum(weight) != 0 and nearly_zero(weight):
        return _fault(weight, "nuslerp")
    return None


def _fault(weights: Sequence[float], divides: str, among: str = "") -> Fault:
    whole = sum(weights)
    nearly = f"nearly sums to zero over the models ({list(weights)}: {whole:.3g})"
    told = f"sums to zero over the models ({list(weights)})" if whole == 0 else nearly
    way_out = "change the weights"
    if divides != "nuslerp":
        way_out += f", or set `{divides}: false`"
    return Fault("parameters.weight", f"{told}{among}, and `{divides}` divides by that; {way_out}")


def _small_subset(weights: Sequence[float]) -> list[float]:
    """Some of the weights whose float32 sum is not zero, but nearly; empty where there are none."""
    import numpy as np

    few = list(weights[:MOST_SUBSETS])
    sums, sizes = np.zeros(1, dtype=np.float32), np.zeros(1)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found in the result
        for weight in few:  # in the order that the merge adds them
            sums = np.concatenate([sums, sums + np.float32(weight)])
            sizes = np.concatenate([sizes, sizes + abs(weight)])
        small = (sums != 0) & np.isfinite(sums) & (np.abs(sums) <= NEARLY_ZERO * sizes)
        (bad,) = np.nonzero(small)
    if not len(bad):
        return []
    return [weight for place, weight in enumerate(few) if int(bad[0]) >> place & 1]
