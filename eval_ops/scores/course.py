"""The order in which a suite's items are asked when one may stop early.

A unit is an item, or all items of a passage. A unit's difference is weighted such that the units'
mean is proportional to the mean over benchmarks: an item of benchmark b counts 1 / (n_b · k) of k
benchmarks, and all are scaled so that no unit can exceed ±1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Item = tuple[str, str]
"""A benchmark's name and an item's id."""


@dataclass(frozen=True)
class Unit:
    """Items that are asked together because they share a passage; mostly a single one."""

    benchmark: str
    items: tuple[Item, ...]
    weight: float

    def mean(self, values: Mapping[Item, float]) -> float:
        """Return the mean over benchmarks, for answers to all items."""
        return self.difference(values, dict.fromkeys(self.items, 0.0))

    def difference(self, ours: Mapping[Item, float], theirs: Mapping[Item, float]) -> float:
        """Return the weighted difference ours − theirs, within [−1, 1] for values within [0, 1]."""
        return self.weight * sum(ours[item] - theirs[item] for item in self.items)


@dataclass(frozen=True)
class Course:
    """Units in random order. Of the first `free` ones each is a fresh random draw.

    `whole` says for which question: about this suite, or about items like these. `scale` turns a
    mean of weighted differences into one of the mean over benchmarks.
    """

    units: tuple[Unit, ...]
    free: int
    scale: float
    whole: bool

    @property
    def items(self) -> tuple[Item, ...]:
        """All items in the order in which they are asked."""
        return tuple(item for unit in self.units for item in unit.items)

    def mean(self, values: Mapping[Item, float]) -> float:
        """Return the mean over benchmarks, for answers to all items."""
        return self.difference(values, dict.fromkeys(self.items, 0.0))

    def difference(self, ours: Mapping[Item, float], theirs: Mapping[Item, float]) -> float:
        """Return the difference of the means over benchmarks, for answers to all items."""
        total = math.fsum(unit.difference(ours, theirs) for unit in self.units)
        return total * self.scale / len(self.units)


def course_of(
    groups: Mapping[str, Mapping[str, str]], *, whole: bool, seed: int = 0, span: float = 1.0
) -> Course:
    """Return the course over benchmark → item id → group ("" for none).

    With `whole` the order is one random permutation of all units: for questions about this suite,
    and all units are free. Without, the benchmark of each next unit is drawn at random, in
    proportion to its number of units, and the unit at random within it: for questions about items
    like these; free are the units until one benchmark has no more. `span` is the metric's range.
    The same arguments give the same order, on every machine.
    """
    generator = np.random.default_rng(seed)
    members: dict[str, list[tuple[Item, ...]]] = {}
    heaviest = 0.0
    for benchmark, items in groups.items():
        passages: dict[str, list[Item]] = {}
        for item in sorted(items):
            passages.setdefault(items[item] or f"\0{item}", []).append((benchmark, item))
        members[benchmark] = [tuple(each) for each in passages.values()]
        largest = max(len(each) for each in members[benchmark])
        heaviest = max(heaviest, largest / (len(items) * len(groups)))
    units: dict[str, list[Unit]] = {}
    for benchmark, every in members.items():
        weight = 1 / (len(groups[benchmark]) * len(groups)) / heaviest / span
        order: list[int] = generator.permutation(len(every)).tolist()
        units[benchmark] = [Unit(benchmark, every[place], weight) for place in order]
    count = sum(len(each) for each in units.values())
    scale = count * heaviest * span
    if whole:
        pool = [unit for each in units.values() for unit in each]
        places: list[int] = generator.permutation(count).tolist()
        return Course(tuple(pool[place] for place in places), count, scale, True)
    ordered, free = _drawn(units, count, generator)
    return Course(ordered, free, scale, False)


def _drawn(
    units: Mapping[str, Sequence[Unit]], count: int, generator: np.random.Generator
) -> tuple[tuple[Unit, ...], int]:
    """Units by benchmarks drawn at random until one runs out, then what is left."""
    names = list(units)
    shares = [len(units[name]) / count for name in names]
    used = dict.fromkeys(names, 0)
    ordered: list[Unit] = []
    drawn: list[int] = generator.choice(len(names), size=count, p=shares).tolist()
    for name in (names[place] for place in drawn):
        if used[name] == len(units[name]):
            break
        ordered.append(units[name][used[name]])
        used[name] += 1
    free = len(ordered)
    for name in names:
        ordered += units[name][used[name] :]
    return tuple(ordered), free
