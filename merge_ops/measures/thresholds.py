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

from merge_ops.kernels.arithmetic import Arithmetic, Band, Bracketed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Values

# Half the width of the bracket, in standard errors of the sample's quantile: of a million searches
# one finds its threshold outside.
MARGIN = 5.0
LARGEST_SAMPLE = 1 << 23  # beyond it, looking at the sample costs more than a wider bracket
_LOW_BITS = 15  # of the 31 bits of a magnitude; the upper 16 make a histogram of 512 KiB


def kept_count(density: float, count: int) -> int:
    """How many of `count` entries a density keeps: max(1, ⌊density · n⌋), all from 1 on."""
    return count if density >= 1 else max(1, int(density * count))


@dataclass(frozen=True)
class Threshold:
    """Which magnitudes count as large: all above `value`, and of those equal to it the first.

    `ties` says for each block of the tensor how many equal ones count, from the lowest index on.
    """

    value: float
    ties: tuple[int, ...]

    def band(self, block: int) -> Band:
        """What counts as large in one block, by its number."""
        return Band(self.value, self.ties[block])


def between(lower: Threshold | None, upper: Threshold | None, block: int, count: int) -> Band:
    """The band of what is large for `lower` (all where it is None) and not for `upper`.

    For one block, by its number, of `count` elements.
    """
    low, low_ties = (lower.value, lower.ties[block]) if lower else (0.0, count)
    high, high_ties = (upper.value, upper.ties[block]) if upper else (math.inf, 0)
    return Band(low, low_ties, high, high_ties)


class ThresholdSearch:
    """Finds one threshold, the k-th largest of `count` magnitudes, in as many rounds as needed.

    It is shown the values themselves, of either sign, and holds at most `inside_limit` of their
    magnitudes and those of one block. Where `k` follows from what the first round counts, an
    estimate will do until then: set `k` before that round is absorbed.
    """

    def __init__(self, arithmetic: Arithmetic, k: int, count: int, inside_limit: int) -> None:
        self.threshold: Threshold | None = None
        self.k = k
        self._arithmetic = arithmetic
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

    @property
    def held(self) -> int:
        """How many magnitudes this search holds between blocks."""
        return sum(len(seen.inside) for seen in self._round) if self.bracket else 0

    def look(self, values: Values) -> None:
        """Set the bracket from a sample, shape (n,)."""
        look_all(self._arithmetic, [self], values)

    def places(self, size: int) -> tuple[int, int]:
        """Where in a sorted sample of `size` the bracket ends; a place outside of it is nowhere."""
        share = self.k / self._count
        middle = size * (1 - share)
        half = MARGIN * math.sqrt(size * share * (1 - share)) + 2
        return int(middle - half), int(middle + half)

    def set_bracket(self, low: float, high: float) -> None:
        """Look for the threshold in here."""
        self._low, self._high = low, high

    def observe(self, values: Values) -> Any:
        """What one block, shape (n,), says in this round."""
        return observe_all(self._arithmetic, [self], values)[0]

    def count(self, values: Values) -> Any:
        """What one block, shape (n,), says in a round that looks at no bracket."""
        if self._stage == "ties":
            return self._arithmetic.count_equal(values, self._value)
        within = None if self._stage == "high bits" else self._bin
        return self._arithmetic.histogram(values, _LOW_BITS, within)

    def seen_near(self, above: int, near: NDArray[np.float32]) -> Bracketed:
        """What a block says that has so many magnitudes above the bracket, and these in it.

        `near`, shape (found,), is on the host. It may lack zeros where no threshold can be zero.
        """
        low, high = np.float32(self._low), np.float32(self._high)
        at_high = int(np.count_nonzero(near == high))
        at_low = int(np.count_nonzero(near == low)) if low < high else 0
        inside = near.compress((near > low) & (near < high))
        return Bracketed(above, at_high, at_low, inside)

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
                self._held += len(cast(Bracketed, seen).inside)
        elif self._stage == "ties" or not self._round:
            self._round.append(seen)
        else:
            self._round[0] = self._round[0] + seen

    def settle(self) -> None:
        """All blocks were taken in: sets `threshold`, or the next stage."""
        observations, self._round = self._round, []
        if self._stage == "bracket":
            self._absorb_bracket(cast("Sequence[Bracketed]", observations))
        elif self._stage == "ties":
            self._finish(self._value, self._rank, observations)
        else:
            self._absorb_histogram(observations[0])

    def _absorb_bracket(self, seen: Sequence[Bracketed]) -> None:
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
        self.threshold = Threshold(value, tuple(kept))


def look_all(arithmetic: Arithmetic, searches: Sequence[ThresholdSearch], values: Values) -> None:
    """Set the brackets of several searches from one sample, shape (n,)."""
    size = values.shape[0]
    ends = [search.places(size) for search in searches]
    wanted = sorted({place for pair in ends for place in pair if 0 <= place < size})
    magnitudes = dict(zip(wanted, arithmetic.order_statistics(values, wanted), strict=True))
    for search, (low, high) in zip(searches, ends, strict=True):
        search.set_bracket(magnitudes.get(low, 0.0), magnitudes.get(high, math.inf))


def observe_all(
    arithmetic: Arithmetic, searches: Sequence[ThresholdSearch], values: Values
) -> list[Any]:
    """What one block, shape (n,), says to several searches: one pass over all their brackets."""
    brackets = [search.bracket for search in searches]
    known = [bracket for bracket in brackets if bracket is not None]
    seen = iter(arithmetic.under_brackets(values, known) if known else [])
    return [
        search.count(values) if bracket is None else next(seen)
        for search, bracket in zip(searches, brackets, strict=True)
    ]
