"""The smallest difference that a suite can show, before anything is scored.

Two checkpoints answer the same n items, and on a share ψ of them (the discordance) just one is
right. The sum of the differences has the variance n · ψ if neither is better. A difference δ is
found with probability `power` where (Miettinen 1968, with a step for McNemar's exact test)

    δ · n − 1 ≥ z(confidence) · √(n · ψ) + z(power) · √(n · (ψ − δ²)).

ψ comes from earlier scores. Without any it is ½: so often differ two checkpoints of equal skill, at
the most, if they do not avoid each other's right answers. A passage counts as one item then, too:
the worst case, in which all of its items agree.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

from eval_ops.errors import PairingError
from eval_ops.scores.intervals import clustered_stderr
from eval_ops.scores.scores import SuiteScores

WORST_DISCORDANCE = 0.5
POWER = 0.8


@dataclass(frozen=True)
class Expected:
    """What is expected of a benchmark: `n` items in `clusters` groups, `discordance` of two.

    `effective` items are worth as much as these, if items of one group depend on each other.
    `known` says whether earlier scores told, or the worst is assumed.
    """

    n: int
    clusters: int
    discordance: float = WORST_DISCORDANCE
    effective: float = 0.0
    known: bool = False

    @property
    def size(self) -> float:
        """Effective items, or groups where nothing is known."""
        return self.effective or float(self.clusters)


@dataclass(frozen=True)
class SuitePower:
    """The smallest differences, in shares, that a suite can show at `power` and `confidence`.

    `mean` is that of the mean over benchmarks; `known` whether earlier scores told how often
    two checkpoints differ.
    """

    suite: str
    mean: float
    benchmarks: Mapping[str, float]
    expected: Mapping[str, Expected] = field(default_factory=dict[str, Expected])
    power: float = POWER
    confidence: float = 0.95
    known: bool = False

    def to_text(self) -> str:
        """Say it in two sentences, in points."""
        each = ", ".join(
            f"{name} {100 * difference:.1f} ({self._items(name)})"
            for name, difference in self.benchmarks.items()
        )
        source = "as often as earlier scores do" if self.known else "at the worst"
        return (
            f"suite {self.suite}: a difference of {100 * self.mean:.1f} points of the mean is found"
            f" with probability {100 * self.power:g} % at {100 * self.confidence:g} % confidence,"
            f" if two checkpoints differ {source}. On one benchmark, in points: {each}."
        )

    def _items(self, benchmark: str) -> str:
        expected = self.expected[benchmark]
        passages = f" in {expected.clusters} groups" if expected.clusters < expected.n else ""
        return f"{expected.n} items{passages}"


def smallest_difference(
    n: float,
    discordance: float = WORST_DISCORDANCE,
    power: float = POWER,
    confidence: float = 0.95,
) -> float:
    """Return the smallest difference, a share, that `n` items show with probability `power`.

    1.0 where not even that is found. A difference above the discordance raises it: at least so
    often two checkpoints differ.
    """
    normal = NormalDist()
    z_confidence, z_power = normal.inv_cdf((1 + confidence) / 2), normal.inv_cdf(power)

    def found(difference: float) -> bool:
        differing = max(discordance, difference)
        chance = z_confidence * math.sqrt(n * differing)
        spread = z_power * math.sqrt(n * max(0.0, differing - difference**2))
        return difference * n - 1 >= chance + spread

    if not found(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def suite_power(
    suite: str,
    expected: Mapping[str, Expected],
    power: float = POWER,
    confidence: float = 0.95,
) -> SuitePower:
    """Return what a suite can show, of its mean and of each benchmark.

    The mean over k benchmarks has the variance Σ ψ/n / k²: as many items of the mean discordance as
    give this variance have its smallest difference.
    """
    each = {
        name: smallest_difference(one.size, one.discordance, power, confidence)
        for name, one in expected.items()
    }
    every = list(expected.values())
    discordance = sum(one.discordance for one in every) / len(every)
    variance = sum(one.discordance / one.size for one in every) / len(every) ** 2
    n = discordance / variance if variance > 0 else float(sum(one.n for one in every))
    mean = smallest_difference(n, discordance, power, confidence)
    known = all(one.known for one in every)
    return SuitePower(suite, mean, each, dict(expected), power, confidence, known)


def expected_from(scores: Sequence[SuiteScores], split: str = "test") -> dict[str, Expected]:
    """Return what earlier scores on a suite let one expect, a benchmark each.

    The discordance is the mean square of the difference between each checkpoint and the first one
    (for right and wrong items: how often just one is right). It is the worst case with fewer than
    two checkpoints, or where no two of them differ. Raises PairingError without samples.
    """
    first = scores[0]
    told: dict[str, Expected] = {}
    for benchmark in first.benchmarks:
        values, passages = first.values(benchmark, split), first.groups(benchmark, split)
        items = sorted(values)
        groups = [passages.get(item, "") for item in items]
        n, alone = len(items), sum(not group for group in groups)
        clusters = alone + len(set(groups) - {""})
        squares: list[float] = []
        effects: list[float] = []
        for other in scores[1:]:
            theirs = other.values(benchmark, split)
            if theirs.keys() != values.keys():
                raise PairingError(f"benchmark '{benchmark}' ({split}): the items differ")
            apart = [theirs[item] - values[item] for item in items]
            squares.append(sum(each * each for each in apart) / n)
            effects.append(_design_effect(apart, groups))
        discordance = sum(squares) / len(squares) if squares else 0.0
        if discordance == 0:
            told[benchmark] = Expected(n, clusters)
            continue
        effect = sum(effects) / len(effects)
        told[benchmark] = Expected(n, clusters, discordance, n / max(1.0, effect), known=True)
    return told


def _design_effect(apart: Sequence[float], groups: Sequence[str]) -> float:
    """How much the variance of a mean grows because items share groups."""
    if not any(groups):
        return 1.0
    alone, together = clustered_stderr(apart, ()), clustered_stderr(apart, groups)
    if not alone or together is None:
        return 1.0
    return (together / alone) ** 2
