"""Sequential tests that may be looked at after every answer: betting on paired differences.

A gambler bets against "ours is no better than theirs". Each unit (an item, or the items that share
a passage) has a difference d in [−1, 1], ours − theirs. A bet of a share λ of the capital turns
K into K · (1 + λ · d). While the claim is true, the capital is not expected to grow, and it ever
reaches 1/α with a chance of at most α (Ville 1939): whenever it does, the claim is rejected, and
one may look as often as one likes. Bets of several sizes are made side by side and their capitals
averaged, since the best size is not known ("diversified Kelly" and the hedged capital of
Waudby-Smith and Ramdas 2024, doi.org/10.1093/jrsssb/qkad009). A mirrored gambler bets against "no
worse".

Two populations can be meant.

- Items like these (`units` None): units are drawn at random, one after the other, without end. This
  is what a promotion is about.
- This suite (`units` N): all N units could be asked, in random order, and the question is what the
  sum of all would be. What was seen tells of what is left: if the N differences summed to 0, those
  left would have the mean m = −(sum so far) / (number left), and the bet is on d − m (ibid.,
  section 5). When what is left cannot turn the sum, the answer is certain. This is what choosing
  the best of several candidates is about.
"""

import math
from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["better", "worse", "undecided"]
Floats = NDArray[np.float64]

BETS = (0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.85, 0.92, 0.97)
"""Shares of the capital that are bet: small ones for small differences, large ones for large."""
ROUNDING = 1e-12


class Capital:
    """The capitals of gamblers who bet against "the mean is at most `margin`", side by side.

    `shape` is that of the comparisons made at once, each with its own differences, and `margin` one
    number or one for each of them. `units` is the size of the population, or None for one without
    end.
    """

    def __init__(
        self,
        shape: tuple[int, ...] = (),
        units: int | None = None,
        margin: "float | Floats" = 0.0,
    ) -> None:
        self.units, self.margin, self.count = units, margin, 0
        self.sums: Floats = np.zeros(shape)
        self.certain = np.zeros(shape, dtype=np.bool_)
        self._logs: Floats = np.zeros((len(BETS), *shape))
        self._bets = np.array(BETS).reshape(-1, *(1 for _ in shape))

    def update(self, differences: Floats) -> None:
        """Bet on the next unit; `differences` in [−1, 1] has the capital's shape."""
        mean = self.margin + np.zeros_like(self.sums)
        if self.units is not None:
            mean = (self.units * self.margin - self.sums) / (self.units - self.count)
        room = 1 + mean  # how far below the mean a difference can fall
        possible = room > ROUNDING
        gain = np.where(possible, (differences - mean) / np.where(possible, room, 1.0), 0.0)
        # A mean of -1 means that every difference is -1: one other is proof.
        self.certain = self.certain | (~possible & (differences > mean + ROUNDING))
        self._logs += np.log1p(self._bets * np.maximum(gain, -1.0))
        self.sums = self.sums + differences
        self.count += 1
        if self.units is not None:
            least = self.sums - (self.units - self.count)  # if all that is left went wrong
            self.certain = self.certain | (least > self.units * self.margin + ROUNDING)

    def evidence(self) -> Floats:
        """Return the logarithm of each capital; infinity where the answer is certain."""
        most = self._logs.max(axis=0)
        mean = most + np.log(np.exp(self._logs - most).mean(axis=0))
        return np.where(self.certain, math.inf, mean)


class Race:
    """A comparison of two that is decided as soon as it can be; valid at any time.

    With `units` the verdict is on the sum over this suite, else on items like these. Both verdicts
    together err with a chance of at most (1 − `confidence`) / `rivals`: give the number of races
    run side by side, and all together err no more often than 1 − confidence (union bound).
    """

    def __init__(self, confidence: float = 0.95, units: int | None = None, rivals: int = 1) -> None:
        self.confidence = confidence
        self.threshold = math.log(2 * max(1, rivals) / (1 - confidence))
        self.differences: list[float] = []
        self.verdict: Verdict = "undecided"
        self._units = units
        self._sides = Capital((2,), units)  # better, worse

    @property
    def asked(self) -> int:
        """How many units were seen."""
        return self._sides.count

    @property
    def evidence(self) -> tuple[float, float]:
        """The logarithms of the capitals for "better" and for "worse"."""
        better, worse = self._sides.evidence().tolist()
        return better, worse

    def update(self, differences: Iterable[float]) -> Verdict:
        """See the next units' differences, ours − theirs, each in [−1, 1]; return the verdict.

        A verdict once given stays. Raises ValueError for a difference outside the range or NaN, and
        for more units than the suite has.
        """
        for difference in differences:
            if not -1 <= difference <= 1:
                raise ValueError(f"a difference is {difference}; it must lie in [-1, 1]")
            if self._units is not None and self.asked >= self._units:
                raise ValueError(f"the suite has {self._units} units, and all of them were seen")
            self._sides.update(np.array([difference, -difference]))
            self.differences.append(float(difference))
            if self.verdict == "undecided":
                better, worse = self.evidence
                if better >= self.threshold:
                    self.verdict = "better"
                elif worse >= self.threshold:
                    self.verdict = "worse"
        return self.verdict

    def interval(self, steps: int = 400) -> tuple[float, float]:
        """Return the confidence sequence so far: the means that no gambler has ruled out.

        The means are looked at on a grid of `steps` steps and the interval is rounded outwards to
        it. It may be read at any time, and holds the true mean at every time at once with the
        race's confidence.
        """
        grid = np.linspace(-1, 1, steps + 1)
        above, below = self._most(grid, 1), self._most(-grid, -1)
        left = grid[(above < self.threshold) & (below < self.threshold)]
        if len(left) == 0:
            mean = float(np.mean(self.differences))
            return mean, mean
        step = 2 / steps
        low, high = max(-1.0, float(left[0]) - step), min(1.0, float(left[-1]) + step)
        return round(low, 9) + 0.0, round(high, 9) + 0.0

    def _most(self, margins: Floats, sign: int) -> Floats:
        """The largest evidence there ever was against "the mean is at most" each margin."""
        capital, most = Capital(margins.shape, self._units, margins), np.zeros(margins.shape)
        for difference in self.differences:
            capital.update(np.full(margins.shape, sign * difference))
            most = np.maximum(most, capital.evidence())
        return most
