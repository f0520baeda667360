"""What a merge keeps of its experts, what it breaks, and what it trades: from scores alone.

- Retention: the share of an expert's gain over the base that a merge keeps, over the benchmarks on
  which the expert is significantly better than the base. 1 is all of it, 0 none, above 1 more.
- Interference: items that the base and every expert answer right and the merge wrong (broken), and
  items that the expert alone learned and the merge lost.
- Fronts: of several goals, what nothing else beats in one and equals in all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval_ops.scores.comparison import compare_answers
from eval_ops.scores.intervals import cluster_sums, wilson
from eval_ops.scores.matrices.matrix import ScoreMatrix, Values
from eval_ops.scores.paired_answers import Pair

RESAMPLES = 2_000
LEAST_GAIN = 0.02
"""A share of a gain below this would be noise over noise; such an expert has no retention."""


@dataclass(frozen=True)
class Retention:
    """How much of one expert a merge keeps; shares of its gain over the base, with an interval.

    `benchmarks` are those on which the expert is significantly above the base. Where there are
    none, `share` and its bounds are None: there is nothing to keep. `learned` counts the items that
    the expert has right and the base wrong, `lost` those of them that the merge has wrong; `low`
    and `high` are at `confidence`.
    """

    merge: str
    expert: str
    benchmarks: tuple[str, ...]
    gain: float
    share: float | None
    low: float | None
    high: float | None
    learned: int
    lost: int


@dataclass(frozen=True)
class Interference:
    """What a merge breaks: of `sure` items that base and all experts have right, `broken` ones.

    `low` and `high` bound the share. `new` counts items that none of them has right and the merge.
    """

    merge: str
    sure: int
    broken: int
    low: float
    high: float
    new: int


def retention(
    test: ScoreMatrix,
    merge: str,
    expert: str,
    base: str,
    confidence: float = 0.95,
    seed: int = 0,
) -> Retention:
    """Work out what a merge keeps of one expert, on the items of a matrix (give test items)."""
    ours, theirs, before = (test.values[test.model(name)] for name in (merge, expert, base))
    better = [name for name in test.benchmarks if _gained(test, name, theirs, before, confidence)]
    places = [test.where(name) for name in better]
    gain = float(np.mean([(theirs - before)[at].mean() for at in places])) if places else 0.0
    of_gains = np.concatenate(places) if places else np.zeros(0, dtype=np.int64)
    learned = (theirs[of_gains] >= 1) & (before[of_gains] < 1)
    lost = int((learned & (ours[of_gains] < 1)).sum())
    if gain < LEAST_GAIN:
        none = (None, None, None)
        return Retention(merge, expert, tuple(better), gain, *none, int(learned.sum()), lost)
    share = float(np.mean([(ours - before)[at].mean() for at in places])) / gain
    passages = [test.passages(at) for at in places]
    low, high = _ratio_bounds(ours - before, theirs - before, places, passages, confidence, seed)
    if high - low < 1e-9 and learned.any():  # every resample says the same: few items can say more
        count = int(learned.sum())
        low = min(low, share * wilson(1 - lost / count, count, confidence).low)
    return Retention(
        merge, expert, tuple(better), gain, share, min(low, share), max(high, share),
        int(learned.sum()), lost,
    )  # fmt: skip


def interference(
    test: ScoreMatrix, merge: str, experts: Sequence[str], base: str, confidence: float = 0.95
) -> Interference:
    """Count what a merge breaks that the base and all its experts have right."""
    ours = test.values[test.model(merge)] >= 1
    parents = test.values[[test.model(name) for name in (base, *experts)]] >= 1
    sure = parents.all(axis=0)
    broken, count = int((sure & ~ours).sum()), int(sure.sum())
    low, high = wilson(broken / count, count, confidence) if count else (0.0, 1.0)
    new = int((ours & ~parents.any(axis=0)).sum())
    return Interference(merge, count, broken, low, high, new)


def front(points: Values, smaller: Sequence[int] = ()) -> NDArray[np.bool_]:
    """Tell which points no other one dominates, for goals [points, goals], more being better.

    Of the goals in `smaller` less is better. Points that are equal in all goals are all on the
    front; one with a NaN is not, and beats none.
    """
    goals = np.array(points, dtype=np.float64)
    goals[:, list(smaller)] *= -1
    whole = np.array([bool(np.isfinite(row).all()) for row in goals], dtype=np.bool_)
    found = np.array(whole, dtype=np.bool_)
    for place in np.flatnonzero(whole):
        others = goals[whole]
        at_least = (others >= goals[place]).all(axis=1)
        found[place] = not (at_least & (others > goals[place]).any(axis=1)).any()
    return found


def mean_lengths(test: ScoreMatrix) -> Values:
    """Return each model's mean answer in tokens over the items that have one; NaN for none."""
    known = np.isfinite(test.lengths)
    counts = known.sum(axis=1)
    sums = np.where(known, test.lengths, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _gained(
    test: ScoreMatrix, benchmark: str, theirs: Values, before: Values, confidence: float
) -> bool:
    """Whether an expert is better than the base on a benchmark, as any two are compared."""
    at = test.where(benchmark)
    pair = Pair(theirs[at], before[at], test.passages(at))
    found = compare_answers({benchmark: pair}, confidence=confidence, resamples=RESAMPLES)
    return found.verdict == "better"


def _ratio_bounds(
    ours: Values,
    theirs: Values,
    places: Sequence[NDArray[np.int64]],
    passages: Sequence[Sequence[str]],
    confidence: float,
    seed: int,
) -> tuple[float, float]:
    """Bootstrap bounds of mean(ours) / mean(theirs), units drawn in pairs within benchmarks.

    A unit is an item, or the items of one of the benchmark's `passages`.
    """
    draw = np.random.default_rng(seed)
    kept, gained = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    for at, groups in zip(places, passages, strict=True):
        (our, sizes), (their, _) = (cluster_sums(side[at], groups) for side in (ours, theirs))
        for start in range(0, RESAMPLES, 200):
            drawn = draw.integers(0, len(sizes), size=(200, len(sizes)))
            items = sizes[drawn].sum(axis=1)
            kept[start : start + 200] += our[drawn].sum(axis=1) / items
            gained[start : start + 200] += their[drawn].sum(axis=1) / items
    ratios = kept / np.maximum(gained, len(places) * LEAST_GAIN)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail])
    return float(low), float(high)
