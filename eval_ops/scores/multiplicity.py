"""Several tests at once: Holm's correction, and how much the best of several flatters itself.

Where Holm belongs: the gate asks of each benchmark whether the candidate lost there. With b
benchmarks and no loss at all, one of b tests at 5 % would cry loss in up to b · 5 % of cases. Holm
(1979) keeps that at 5 % for all together, whatever their dependence. Where it does not belong: the
gate's promotion asks for a better mean *and* no loss; asking for more never promotes more
(an intersection-union test), so nothing is to be corrected. The leaderboard's verdicts are told row
by row, uncorrected, and say so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval_ops.errors import PairingError
from eval_ops.scores.intervals import Floats, cluster_sums
from eval_ops.scores.scores import SuiteScores

HALVINGS = 500
MOST_CANDIDATES = 256
"""Candidates that the optimism is estimated from, best first: the others are hardly ever best."""


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values adjusted by Holm's step-down method, in the order given.

    The smallest of m is multiplied by m, the next by m − 1, …; none falls below one before it, and
    none rises above 1.
    """
    adjusted: dict[str, float] = {}
    most = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda each: p_values[each])):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = most
    return {name: adjusted[name] for name in p_values}


@dataclass(frozen=True)
class Optimism:
    """How much the validation mean of the best of `candidates` flatters it, as a share.

    `apparent` is its validation mean, `bias` what of it is expected to be luck.
    """

    candidates: int
    apparent: float
    bias: float

    def to_text(self) -> str:
        """Say it in a sentence, in points."""
        corrected = self.apparent - self.bias
        return (
            f"The best of {self.candidates} on validation items has {100 * self.apparent:.1f} "
            f"there, of which {100 * self.bias:.1f} points are the luck of the best (estimated by "
            f"halves; {100 * corrected:.1f} without it). Test items decide."
        )


def optimism(
    candidates: Sequence[SuiteScores],
    split: str = "validation",
    halvings: int = HALVINGS,
    seed: int = 0,
) -> Optimism:
    """Estimate the optimism of the best of several candidates' means on the items of a split.

    The items (groups, where they share passages) are halved at random, many times. The best on one
    half has a mean there and another on the other half, which is no luck of its choice. Half the
    items err by √2 more, so the average gap over √2 is the bias on all. For equal candidates this
    is right on average; where one is clearly best it is 0. (Efron's bootstrap of the best, tried
    first, finds a third of it among equals: the resampled candidates are no equals.) The same
    arguments give the same numbers. Raises PairingError without samples, or where items differ.
    """
    first = candidates[0]
    order = sorted(range(len(candidates)), key=lambda i: (-candidates[i].mean(split).value, i))
    chosen = [candidates[i] for i in order[:MOST_CANDIDATES]]
    generator = np.random.default_rng(seed)
    halves = np.zeros((2, halvings, len(chosen)))
    for benchmark in first.benchmarks:
        items = sorted(first.values(benchmark, split))
        passages = first.groups(benchmark, split)
        groups = [passages.get(item, "") for item in items] if passages else ()
        columns: list[Floats] = []
        sizes = np.ones(len(items))
        for scores in chosen:
            values = scores.values(benchmark, split)
            if sorted(values) != items:
                raise PairingError(f"benchmark '{benchmark}' ({split}): the items differ")
            sums, sizes = cluster_sums(np.array([values[item] for item in items]), groups)
            columns.append(sums)
        matrix = np.stack(columns, axis=1)  # [groups, candidates]
        ranks = generator.random((halvings, len(sizes))).argsort(axis=1)
        half = (ranks < len(sizes) // 2).astype(np.float64)
        for side, drawn in enumerate((half, 1 - half)):
            if len(sizes) < 2:  # a single group cannot be halved: it says the same to both
                drawn = np.ones_like(half)
            halves[side] += (drawn @ matrix) / (drawn @ sizes)[:, None]
    halves /= len(first.benchmarks)
    gaps: list[float] = []
    for here, there in (halves, halves[::-1]):
        best = here.argmax(axis=1)
        rows = np.arange(halvings)
        gaps.append(float((here[rows, best] - there[rows, best]).mean()))
    bias = max(0.0, sum(gaps) / 2 / math.sqrt(2))
    return Optimism(len(candidates), chosen[0].mean(split).value, bias)
