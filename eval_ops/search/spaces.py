"""Spaces: the dimensions of a search, and points in them."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from eval_ops.errors import SearchError
from eval_ops.search.settings import MOST_DIMENSIONS, ParameterRange, SearchSettings

Value = bool | int | float | str
Point = Mapping[str, Value]
"""A value for each dimension, by the dimension's name."""

REST = ""
"""The part of a parameter given by component that all other tensors have."""
DIGITS = 4
"""Significant digits of a proposed number: no score can tell two that are nearer apart."""


@dataclass(frozen=True)
class Dimension:
    """A dimension is one number or choice of a point.

    `part` says which expert's, layers' anchor's (`0`, `1`, …) or component's value of `parameter`
    it is; None where the parameter has one value. Numbers go from `low` to `high`; otherwise one
    of `values` is chosen.
    """

    parameter: str
    part: str | None
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    values: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        """Return what points call it: `lambda`, `weight[herbs]`, `t[0]`, `scale[rest]`."""
        return self.parameter if self.part is None else f"{self.parameter}[{self.part or 'rest'}]"

    @property
    def steps(self) -> tuple[Value, ...]:
        """Return all its values, where they are countable; () for a range without a step."""
        if self.values:
            return self.values
        if self.step is None:
            return ()
        count = math.floor((self.high - self.low) / self.step * (1 + 1e-9)) + 1
        return tuple(rounded(self.low + n * self.step) for n in range(count))

    def at(self, share: float) -> Value:
        """Return the value at a share of the way from low to high; equal shares for choices."""
        share = min(max(share, 0.0), 1.0)
        if self.steps:
            return self.steps[min(int(share * len(self.steps)), len(self.steps) - 1)]
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            value = math.exp(low + share * (high - low))
        else:
            value = self.low + share * (self.high - self.low)
        return self.within(value)

    def share_of(self, value: Value) -> float:
        """Return how far a number is from low to high, from 0 to 1: what `at` takes.

        With steps it is the share of the range, not of the steps.
        """
        number, low, high = float(value), self.low, self.high
        if self.log:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return min(max((number - low) / (high - low), 0.0), 1.0)

    def start(self, given: object = None) -> Value:
        """Return where a search of it begins: what is `given`, where that can be tried.

        Else the middle of its range, or the first of its choices.
        """
        if self.values:
            return next((value for value in self.values if value == given), self.values[0])
        wanted = float(self.at(0.5))
        if isinstance(given, int | float) and self.low <= given <= self.high:
            wanted = float(given)
        if not self.steps:
            return self.within(wanted)
        return min(self.steps, key=lambda step: abs(float(step) - wanted))

    def within(self, value: float) -> float:
        """Return a number of a range as points have it: rounded, and between its ends."""
        return min(max(rounded(value), self.low), self.high)


@dataclass(frozen=True)
class SearchSpace:
    """The dimensions of one search, in order; names are unique."""

    dimensions: tuple[Dimension, ...]

    @property
    def grid_size(self) -> int:
        """Return how many points a grid has."""
        return math.prod(len(each.steps) for each in self.dimensions)

    def start(self, given: Mapping[str, object]) -> Point:
        """Return the point where a search begins: what the parameters are without one.

        `given` are values by the dimensions' names; where one is not given, or cannot be tried,
        it is the middle of the range.
        """
        return {each.name: each.start(given.get(each.name)) for each in self.dimensions}

    def grid(self) -> Iterator[Point]:
        """Give every point of the grid, the last dimension changing first."""
        names = [each.name for each in self.dimensions]
        for values in itertools.product(*(each.steps for each in self.dimensions)):
            yield dict(zip(names, values, strict=True))


def space_of(
    settings: SearchSettings, experts: Sequence[str] = (), where: str = "search"
) -> SearchSpace:
    """Return the space of checked settings; `experts` are those of the set that is merged.

    Raises SearchError where a parameter is per expert and there are none, or the space is too big.
    """
    dimensions: list[Dimension] = []
    for name, given in settings.parameters.items():
        if given.per == "expert" and not experts:
            problem = "is `per: expert`, and the recipe has no `experts`; name them there"
            raise SearchError(where, [f"parameters.{name} {problem}"])
        parts = _parts(given, experts)
        dimensions += [_dimension(name, part, given) for part in parts]
    if len(dimensions) > MOST_DIMENSIONS:
        problem = f"has {len(dimensions)} dimensions; at most {MOST_DIMENSIONS} are allowed"
        raise SearchError(where, [problem])
    return SearchSpace(tuple(dimensions))


def rounded(value: float) -> float:
    """Return a number to four significant digits."""
    return float(f"{value:.{DIGITS}g}") + 0.0


def _parts(given: ParameterRange, experts: Sequence[str]) -> Sequence[str | None]:
    if given.per is None:
        return [None]
    if given.per == "expert":
        return sorted(experts)
    if given.per == "layers":
        return [str(anchor) for anchor in range(given.points or 2)]
    return [*given.per, REST]


def _dimension(name: str, part: str | None, given: ParameterRange) -> Dimension:
    if given.values is not None:
        return Dimension(name, part, values=tuple(given.values))
    low, high = float(given.low or 0.0), float(given.high or 0.0)
    return Dimension(name, part, low, high, given.log, given.step)
