"""The `search` of a recipe: what is varied, how points are chosen, and when it ends.

search:
  sampler: tpe                    # random, tpe, cma-es or grid
  trials: 40
  objective: mean                 # or a list of benchmarks: a Pareto front
  measure: probability            # of the right answer; or score
  winner: centre                  # of all trials about as good as the best one; or best
  parameters:
    lambda: {low: 0.5, high: 1.5}
    density: {low: 0.05, high: 1.0, log: true}
    weight: {low: 0.0, high: 1.5, per: expert}      # a number for each expert
    t: {low: 0.0, high: 1.0, per: layers, points: 4}   # a gradient over the layers
    scale: {values: [0.5, 1.0], per: [self_attn, mlp]}  # by component, and one for the rest
  budget: {items: 20000, minutes: 30}
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval_ops.errors import SearchError
from eval_ops.faults import Place, list_faults

MOST_TRIALS = 10_000
MOST_DIMENSIONS = 512
"""Of a space. CMA-ES keeps the square of it; TPE needs some seconds for each point beyond."""

Winner = Literal["centre", "best"]
Measure = Literal["probability", "score"]
Sampler = Literal["random", "tpe", "cma-es", "grid"]
MEAN = "mean"
"""The objective that is the mean over the suite's benchmarks."""


class ParameterRange(BaseModel):
    """What one parameter may be: numbers from `low` to `high`, or one of `values`.

    `log` searches by ratio instead of difference; with `step` only low, low + step, … are tried.
    `per` gives each expert, each of `points` anchors over the layers, or each component whose
    tensors' names hold a word (and one for all other tensors) a value of its own.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)
    log: bool = False
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    values: list[bool | int | float | str] | None = Field(default=None, min_length=1, max_length=64)
    per: Literal["expert", "layers"] | list[str] | None = None
    points: int | None = Field(default=None, ge=2, le=64)

    @model_validator(mode="after")
    def _check(self) -> "ParameterRange":
        ends = [end for end in (self.low, self.high) if end is not None]
        if len(ends) == 1 or bool(ends) == bool(self.values):
            raise ValueError("give either `low` and `high`, or `values`")
        if self.values and (self.log or self.step is not None):
            raise ValueError("`log` and `step` go with low and high, not with `values`")
        if self.values and len(set(self.values)) < len(self.values):
            raise ValueError(f"values names one twice: {self.values}")
        if self.low is not None and self.high is not None:
            self._check_range(self.low, self.high)
        if (self.points is not None) != (self.per == "layers"):
            raise ValueError("`points` says how many anchors `per: layers` has: give both or none")
        if isinstance(self.per, list):
            words = self.per
            if not words or len(set(words)) < len(words) or not all(words):
                raise ValueError("per must name each component once, by a part of tensor names")
        return self

    def _check_range(self, low: float, high: float) -> None:
        if not low < high:
            raise ValueError(f"low is {low:g} and high {high:g}; low must be below high")
        if self.log and low <= 0:
            raise ValueError(f"low is {low:g}; with `log` it must be above 0")
        if self.log and self.step is not None:
            raise ValueError("`log` and `step` cannot be given together")
        if self.step is not None and self.step > high - low:
            raise ValueError(f"step is {self.step:g}; it must fit between low and high")


class Budget(BaseModel):
    """When a study ends before its last trial: after so many answers, or so many minutes.

    What stopped for its minutes goes on with the next run, and tries what it would have tried.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)


Objective = Annotated[str, Field(min_length=1)]


class SearchSettings(BaseModel):
    """A checked `search`.

    `measure` says what an item of choices counts while points are proposed and chosen: the
    probability of its right answer, which tells more of a candidate than right or wrong does, or
    its score. `winner` says which point is taken (`winners`); None, where it is not said, is the
    centre for one objective and the best trial, which is on the front, for several.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sampler: Sampler = "tpe"
    trials: int = Field(default=40, ge=1, le=MOST_TRIALS)
    objective: Objective | list[Objective] = MEAN
    parameters: dict[str, ParameterRange] = Field(min_length=1)
    budget: Budget = Budget()
    winner: Winner | None = None
    measure: Measure = "probability"

    @property
    def takes_centre(self) -> bool:
        """Return whether the centre is scored, and may win."""
        return (self.winner or ("best" if len(self.objectives) > 1 else "centre")) == "centre"

    @property
    def objectives(self) -> tuple[str, ...]:
        """Return what is to be high, one name or more."""
        return (self.objective,) if isinstance(self.objective, str) else tuple(self.objective)

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        objectives = self.objectives
        if not objectives or len(set(objectives)) < len(objectives):
            raise ValueError("objective must be 'mean', a benchmark, or benchmarks, each once")
        if self.sampler == "cma-es":
            if len(objectives) > 1:
                raise ValueError(
                    f"cma-es takes one objective, here are {len(objectives)}; use `sampler: tpe`"
                )
            fixed = [name for name, each in self.parameters.items() if each.values is not None]
            if fixed:
                raise ValueError(
                    f"cma-es needs numbers from low to high; {', '.join(fixed)} has `values`: use "
                    "`sampler: tpe`"
                )
        if self.sampler == "grid":
            open_ = [n for n, each in self.parameters.items() if not (each.values or each.step)]
            if open_:
                raise ValueError(f"a grid needs `values` or `step` of each: {', '.join(open_)}")
        return self


def check_search(settings: object, where: str = "search") -> SearchSettings:
    """Check a recipe's `search` mapping. SearchError lists every fault; `where` is its place."""
    if not isinstance(settings, Mapping):
        raise SearchError(where, ["must be a mapping with at least `parameters`"])
    try:
        return SearchSettings.model_validate(dict(settings))  # pyright: ignore[reportUnknownArgumentType]
    except ValidationError as error:
        raise SearchError(where, list_faults(error, _known_keys)) from None


def _known_keys(place: Place) -> Collection[str]:
    if place[:1] == ("parameters",):
        return ParameterRange.model_fields
    return (Budget if place[:1] == ("budget",) else SearchSettings).model_fields
