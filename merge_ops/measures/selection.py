"""The exact k-th largest magnitude of a task vector, without sorting and in bounded memory.

A sample brackets the threshold; every block then counts what lies above the bracket and hands over
the few values inside it, of which one partition gives the k-th. If the sample misled, or too many
values fall inside, two rounds of histograms over the bits of the magnitudes find it all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from merge_ops.kernels import loops as kernels
from merge_ops.kernels.values import count_of

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
MARGIN = 5.0  # half width of the bracket, in standard errors of the sample's quantile
LARGEST_SAMPLE = 1 << 23
_LOW_BITS = 15


def kept_count(density: float, count: int) -> int:
    """How many of `count` entries a density keeps: max(1, ⌊density · n⌋), all from 1 on."""
    return count if density >= 1 else max(1, int(density * count))


@dataclass(frozen=True)
class Threshold:
    """Keep all magnitudes above `value`, and as many equal to it as `ties` says for each block."""

    value: float
    ties: tuple[int, ...]
    equal: tuple[int, ...]

    def apply(self, delta: Tensor, block: int) -> Tensor:
        """`delta` with everything else set to zero; ties are kept from the lowest index on."""
        ties, equal = self.ties[block], self.equal[block]
        kept = kernels.keep_band(delta, self.value, ties, math.inf, 0)
        if kept is not None:
            return kept
        import torch

        if ties == 0:
            return torch.nn.functional.hardshrink(delta, self.value)
        if ties == equal:
            below = float(np.nextafter(np.float32(self.value), np.float32(-1.0)))
            return torch.nn.functional.hardshrink(delta, max(below, 0.0))
        kept = torch.nn.functional.hardshrink(delta, self.value)
        places = torch.nonzero(delta.abs() == self.value).flatten()[:ties]
        kept[places] = delta[places]
        return kept

    def apply_to(self, values: Tensor, by: Tensor, block: int) -> Tensor:
        """`values` where `apply` keeps `by`, zero elsewhere."""
        kept = kernels.keep_band(by, self.value, self.ties[block], math.inf, 0, values)
        if kept is not None:
            return kept
        return values.where(self.apply(by, block) != 0, values.new_zeros(()))


@dataclass(frozen=True)
class _Seen:
    """One block under a bracket [low, high]: how many above it, equal to its ends, and inside."""

    above: int
    at_high: int
    at_low: int
    inside: Floats


class Selection:
    """Finds one threshold, the k-th largest of `count` magnitudes, in as many rounds as needed.

    It is shown the values themselves, of either sign.

    Where `k` follows from what the first round counts, an estimate will do until then: set `k`
    before that round is absorbed.
    """

    def __init__(self, k: int, count: int, inside_limit: int) -> None:
        self.threshold: Threshold | None = None
        self.k = k
        self._count = count
        self._limit = inside_limit
        self._stage = "bracket"
        self._low, self._high = 0.0, math.inf
        self._bin = 0
        self._rank = k
        self._value = 0.0
        self._round: list[Any] = []
        self._held = 0

    @property
    def bracket(self) -> tuple[float, float] | None:
        """What the threshold is thought to lie in, while that is looked at."""
        return (self._low, self._high) if self._stage == "bracket" else None

    @property
    def sample(self) -> int:
        """A sample that balances the cost of looking at it with the width of its bracket."""
        share = min(1.0, self._limit / (2 * self._count))
        narrow_enough = (MARGIN / share) ** 2
        wanted = max(narrow_enough, 4 * self._count ** (2 / 3))
        return int(min(wanted, LARGEST_SAMPLE, self._count / 4))

    def look(self, values: Floats) -> None:
        """Set the bracket from a sample."""
        look_all([self], values)

    def places(self, size: int) -> tuple[int, int]:
        """Where in a sorted sample of so many the bracket ends; outside of it: nowhere."""
        share = self.k / self._count
        middle = size * (1 - share)
        half = MARGIN * math.sqrt(size * share * (1 - share)) + 2
        return int(middle - half), int(middle + half)

    def set_bracket(self, low: float, high: float) -> None:
        """What the threshold is thought to lie in."""
        self._low, self._high = low, high

    def observe(self, values: Floats) -> Any:
        """What one block says in this round."""
        return observe_all([self], values)[0]

    def observe_by_numpy(self, values: Floats) -> Any:
        """`observe`, by numpy alone."""
        if self._stage == "bracket":
            return self._observe_bracket(values)
        magnitude = np.abs(values)
        if self._stage == "ties":
            return int(np.count_nonzero(magnitude == np.float32(self._value)))
        bits = magnitude.view(np.uint32)
        if self._stage == "high bits":
            return np.bincount(bits >> _LOW_BITS, minlength=1 << (31 - _LOW_BITS))
        inside = bits[(bits >> _LOW_BITS) == self._bin] & ((1 << _LOW_BITS) - 1)
        return np.bincount(inside, minlength=1 << _LOW_BITS)

    def _observe_bracket(self, values: Floats) -> _Seen:
        low, high = np.float32(self._low), np.float32(self._high)
        magnitude = np.abs(values)
        above = int(np.count_nonzero(magnitude > high))
        return self.seen_near(above, magnitude.compress((magnitude >= low) & (magnitude <= high)))

    def seen_near(self, above: int, near: Floats) -> Any:
        """What a block says that has so many magnitudes above the bracket, and these in it.

        Of zeros, which no threshold of what differs is among, there need be none.
        """
        low, high = np.float32(self._low), np.float32(self._high)
        at_high = int(np.count_nonzero(near == high))
        at_low = int(np.count_nonzero(near == low)) if low < high else 0
        inside = near.compress((near > low) & (near < high))
        return _Seen(above, at_high, at_low, inside)

    def absorb(self, observations: Iterable[Any]) -> None:
        """Take one round in; sets `threshold`, or the next stage."""
        for seen in observations:
            self.take(seen)
        self.settle()

    def take(self, seen: Any) -> None:
        """Take in what the next block said, holding no more values than the limit and a block's."""
        if self._stage == "bracket":
            if self._held <= self._limit:
                self._round.append(seen)
                self._held += len(cast(_Seen, seen).inside)
        elif self._stage == "ties" or not self._round:
            self._round.append(seen)
        else:
            self._round[0] = self._round[0] + seen

    def settle(self) -> None:
        """All blocks were taken in: sets `threshold`, or the next stage."""
        observations, self._round = self._round, []
        if self._stage == "bracket":
            self._absorb_bracket(cast("Sequence[_Seen]", observations))
        elif self._stage == "ties":
            self._finish(self._value, self._rank, observations)
        else:
            self._absorb_histogram(observations[0])

    def _absorb_bracket(self, seen: Sequence[_Seen]) -> None:
        k, high, low = self.k, np.float32(self._high), np.float32(self._low)
        above = sum(each.above for each in seen)
        to_high = above + sum(each.at_high for each in seen)
        inside = sum(len(each.inside) for each in seen)
        to_low = to_high + inside + sum(each.at_low for each in seen)
        if not above < k <= to_low or inside > self._limit:
            self._rank, self._stage = k, "high bits"
        elif k <= to_high:
            self._finish(float(high), k - above, [each.at_high for each in seen])
        elif k > to_high + inside:
            self._finish(float(low), k - to_high - inside, [each.at_low for each in seen])
        else:
            values = np.concatenate([each.inside for each in seen])
            place = inside - (k - to_high)
            value = np.partition(values, place)[place]
            larger = int(np.count_nonzero(values > value))
            equal = [int(np.count_nonzero(each.inside == value)) for each in seen]
            self._finish(float(value), k - to_high - larger, equal)

    def _absorb_histogram(self, histogram: NDArray[np.int64]) -> None:
        from_top = np.cumsum(histogram[::-1])
        place = int(np.searchsorted(from_top, self._rank))
        chosen = len(histogram) - 1 - place
        self._rank -= int(from_top[place - 1]) if place else 0
        if self._stage == "high bits":
            self._bin, self._stage = chosen, "low bits"
            return
        bits = np.array([(self._bin << _LOW_BITS) | chosen], dtype=np.uint32)
        self._value, self._stage = float(bits.view(np.float32)[0]), "ties"

    def _finish(self, value: float, ties: int, equal: Sequence[int]) -> None:
        """`ties` of the values equal to the threshold are kept, block by block from the first."""
        kept: list[int] = []
        for here in equal:
            kept.append(min(here, ties))
            ties -= kept[-1]
        self.threshold = Threshold(value, tuple(kept), tuple(equal))


def look_all(selections: Sequence[Selection], values: Floats) -> None:
    """Set the brackets of several selections from one sample: it is parted once for all."""
    magnitude = np.abs(values)
    size = len(magnitude)
    ends = [each.places(size) for each in selections]
    wanted = sorted({place for pair in ends for place in pair if 0 <= place < size})
    if wanted:
        magnitude.partition(wanted)
    for each, (low, high) in zip(selections, ends, strict=True):
        each.set_bracket(
            float(magnitude[low]) if low >= 0 else 0.0,
            float(magnitude[high]) if high < size else math.inf,
        )


def observe_all(selections: Sequence[Selection], values: Floats) -> list[Any]:
    """What one block says to several selections in this round: one pass while all have brackets."""
    brackets = [each.bracket for each in selections]
    known = [each for each in brackets if each is not None]
    seen = kernels.under_brackets(values, known) if len(known) == len(brackets) else None
    if seen is not None:
        return [_Seen(*each) for each in seen]
    return [each.observe_by_numpy(values) for each in selections]


def ends_of_band(
    delta: Tensor, block: int, lower: Threshold | None, upper: Threshold | None
) -> tuple[float, int, float, int]:
    """(low, low ties, high, high ties) of `kernels.keep_band`; open where there is no bound."""
    low, low_ties = (lower.value, lower.ties[block]) if lower else (0.0, count_of(delta))
    high, high_ties = (upper.value, upper.ties[block]) if upper else (math.inf, 0)
    return low, low_ties, high, high_ties


def keep_between(delta: Tensor, block: int, lower: Threshold | None, upper: Threshold) -> Tensor:
    """What `lower` keeps (all where it is None) and `upper` does not; zero elsewhere."""
    kept = kernels.keep_band(delta, *ends_of_band(delta, block, lower, upper))
    if kept is not None:
        return kept
    return (lower.apply(delta, block) if lower else delta) - upper.apply(delta, block)
