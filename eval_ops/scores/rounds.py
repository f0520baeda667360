"""Asks candidates in rounds and stops as soon as the answers decide; counts what was saved.

- `select` finds the best of several candidates on validation items. Each candidate is visited
  once: its weights are loaded, it is asked round after round, and it is left as soon as one that
  was asked everything is ahead of it for sure. The chance that the best of all is left is at most
  1 − confidence (union bound over the candidates).
- `challenge` sets one candidate against the champion on test items. It stops where the candidate is
  worse, or where it is better and no benchmark is lost. Undecided candidates are asked everything,
  and then the gate decides as ever. A false promotion has a chance of at most (1 − confidence) / 2
  by the race and as much again by the gate.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval_ops.errors import PairingError
from eval_ops.scores.course import Course, Item
from eval_ops.scores.course import course_of as course_of
from eval_ops.scores.sequential import Capital, Race, Verdict

Ask = Callable[[Sequence[Item]], Mapping[Item, float]]
"""Asks one candidate some items it was not asked before; returns the value of each."""
ROUND = 8
"""Units asked at once: a small batch for the model."""


@dataclass(frozen=True)
class Saved:
    """How many of all items were asked."""

    asked: int
    total: int

    @property
    def share(self) -> float:
        """The share of the items that was not asked."""
        return 1 - self.asked / self.total if self.total else 0.0

    def to_text(self) -> str:
        """Say it in a sentence."""
        return f"{self.asked} of {self.total} items were asked; {100 * self.share:.0f} % saved"


@dataclass(frozen=True)
class Selection:
    """The best of several candidates; `values` are of those that were asked everything.

    `asked` counts the items that each was asked, those that were left early among them.
    """

    best: str
    values: Mapping[str, Mapping[Item, float]]
    asked: Mapping[str, int]
    saved: Saved

    @property
    def left(self) -> tuple[str, ...]:
        """The candidates that were left early."""
        return tuple(name for name in self.asked if name not in self.values)


def select(
    course: Course,
    candidates: Mapping[str, Ask],
    confidence: float = 0.95,
    round_units: int = ROUND,
    known: Mapping[str, Mapping[Item, float]] | None = None,
    pilot_units: int = 0,
) -> Selection:
    """Find the candidate with the best mean over the whole course, in the order given.

    The course is one over this suite (`whole=True`). `known` are candidates whose values are known
    already: nothing is asked of them. With `pilot_units` every candidate is first asked so many,
    and the rest in the order of their means on these: a good one that is early spares many, but
    each is visited twice. Among equals the first is best. PairingError where a candidate does not
    answer what it was asked.
    """
    if not course.whole:
        raise ValueError("select needs a course over this suite (whole=True)")
    names = [*(known or {}), *(name for name in candidates if name not in (known or {}))]
    if not names:
        raise ValueError("no candidate was given to select from")
    threshold = math.log(max(1, len(names) - 1) / (1 - confidence))
    finished: dict[str, Mapping[Item, float]] = dict(known or {})
    asked = dict.fromkeys(names, 0)
    new = [name for name in names if name not in finished]
    pilots = _pilots(course, candidates, new, pilot_units) if len(names) > 1 else {}
    for name in sorted(new, key=lambda name: -pilots[name][1] if name in pilots else 0.0):
        values = dict(pilots[name][0]) if name in pilots else {}
        ahead = Capital((len(finished),), units=len(course.units))
        behind = False
        step = round_units if finished else max(1, len(course.units))  # nobody to be behind of
        for start in range(0, len(course.units), step):
            units = course.units[start : start + step]
            more = [i for unit in units for i in unit.items if i not in values]
            values |= _asked(candidates[name], more, name)
            for unit in units:
                if finished:
                    ahead.update(
                        np.array([unit.difference(each, values) for each in finished.values()])
                    )
            if finished and float(ahead.evidence().max()) >= threshold:
                behind = len(values) < len(course.items)
                break
        asked[name] = len(values)
        if not behind:
            finished[name] = values
    best = max(finished, key=lambda name: (_mean(course, finished[name]), -names.index(name)))
    saved = Saved(sum(asked.values()), len(new) * len(course.items))
    return Selection(best, finished, asked, saved)


def _pilots(
    course: Course, candidates: Mapping[str, Ask], names: Sequence[str], count: int
) -> dict[str, tuple[dict[Item, float], float]]:
    """The answers of every candidate to the first units, and their weighted sum."""
    units = course.units[:count]
    items = [item for unit in units for item in unit.items]
    pilots: dict[str, tuple[dict[Item, float], float]] = {}
    for name in names if items else ():
        values = dict(_asked(candidates[name], items, name))
        pilots[name] = (values, sum(u.weight * values[i] for u in units for i in u.items))
    return pilots


@dataclass(frozen=True)
class Benchmarks:
    """What a challenger must not lose: on each benchmark the values of the best single expert.

    `allowed_loss` and `minimum` (items of each benchmark) are the gate's.
    """

    values: Mapping[Item, float]
    allowed_loss: float = 0.05
    minimum: int = 20


@dataclass(frozen=True)
class Challenge:
    """How a challenge ended: "undecided" where all was asked and the gate has to decide.

    `evidence` are the logarithms of the capitals for better and worse.
    """

    verdict: Verdict
    values: Mapping[Item, float]
    evidence: tuple[float, float]
    saved: Saved
    race: Race
    scale: float

    def interval(self) -> tuple[float, float]:
        """Return bounds of the difference of the means over benchmarks, valid at any time."""
        low, high = self.race.interval()
        return max(-1.0, low * self.scale), min(1.0, high * self.scale)


def challenge(
    course: Course,
    ask: Ask,
    champion: Mapping[Item, float],
    benchmarks: Benchmarks | None = None,
    confidence: float = 0.95,
    round_units: int = ROUND,
    only_worse: bool = False,
) -> Challenge:
    """Ask a candidate until it is better or worse than the champion for sure, or all was asked.

    With `only_worse` it is asked everything unless it is worse: whole scores decide then.

    The course is one over items like these (`whole=False`). "Better" needs, on each benchmark,
    evidence that the loss against the best expert is below the allowed one.
    """
    if course.whole:
        raise ValueError("challenge needs a course over items like these (whole=False)")
    race = Race(confidence)
    values: dict[Item, float] = {}
    guards = _Guards(course, benchmarks, confidence) if benchmarks else None
    verdict: Verdict = "undecided"
    for start in range(0, course.free, round_units):
        units = course.units[start : min(start + round_units, course.free)]
        values |= _asked(ask, [i for unit in units for i in unit.items], "the candidate")
        for unit in units:
            if guards is not None:
                guards.update(unit.benchmark, unit.items, values)
        told = race.update(unit.difference(values, champion) for unit in units)
        promoted = told == "better" and not only_worse
        if told == "worse" or (promoted and (guards is None or guards.safe())):
            verdict = told
            break
    if verdict == "undecided":
        rest = [item for item in course.items if item not in values]
        values |= _asked(ask, rest, "the candidate")
    saved = Saved(len(values), len(course.items))
    return Challenge(verdict, values, race.evidence, saved, race, course.scale)


class _Guards:
    """One gambler a benchmark, who bets against "the loss is as large as allowed, or larger"."""

    def __init__(self, course: Course, benchmarks: Benchmarks, confidence: float) -> None:
        self._benchmarks = benchmarks
        self._threshold = math.log(1 / (1 - confidence))
        self._largest: dict[str, int] = {}
        sizes: dict[str, list[int]] = {}
        for unit in course.units:
            sizes.setdefault(unit.benchmark, []).append(len(unit.items))
        self._asked = dict.fromkeys(sizes, 0)
        self._capitals: dict[str, Capital] = {}
        for name, each in sizes.items():
            # A unit's summed difference, over the largest unit: the loss of its mean shrinks alike.
            self._largest[name] = max(each)
            mean_size = sum(each) / len(each)
            self._capitals[name] = Capital(
                margin=-benchmarks.allowed_loss * mean_size / self._largest[name]
            )

    def update(self, benchmark: str, items: Sequence[Item], values: Mapping[Item, float]) -> None:
        """See the answers to one unit."""
        lost = sum(values[item] - self._benchmarks.values[item] for item in items)
        self._capitals[benchmark].update(np.asarray(lost / self._largest[benchmark]))
        self._asked[benchmark] += len(items)

    def safe(self) -> bool:
        """Whether no benchmark is lost, for sure, and each has items enough."""
        return all(
            float(capital.evidence()) >= self._threshold
            and self._asked[name] >= self._benchmarks.minimum
            for name, capital in self._capitals.items()
        )


def _asked(ask: Ask, items: Sequence[Item], name: str) -> Mapping[Item, float]:
    if not items:
        return {}
    answers = ask(items)
    missing = [item for item in items if item not in answers]
    if missing:
        raise PairingError(
            f"{name} was asked {len(items)} items and did not answer {len(missing)} of them (for "
            f"example '{missing[0][1]}' of {missing[0][0]}); score it on the same suite"
        )
    return {item: answers[item] for item in items}


def _mean(course: Course, values: Mapping[Item, float]) -> float:
    return math.fsum(unit.weight * values[item] for unit in course.units for item in unit.items)
