"""Intervals of means over items that are never ±0, with clusters where items share a passage.

- A share (every item right or wrong) has Wilson's interval (1927; recommended by Brown, Cai and
  DasGupta 2001, doi.org/10.1214/ss/1009213286), or Jeffreys' where asked:
  (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n).
- Other values have a bootstrap interval, bias-corrected and accelerated (BCa, Efron 1987). With
  fewer than FEW units, or no spread among them, resampling says too little. Then Wilson's formula
  is used as for a share: a value within [0, 1] never varies more than a right or wrong item of the
  same mean, so the interval is wide enough.
- Items of one group (a passage) are no independent evidence. The bootstrap draws whole groups; the
  standard error sums within groups (Liang and Zeger 1986; for language models Miller 2024,
  arXiv 2411.00640); Wilson's formula has the effective size n / design effect (Kish 1965), with
  Student's quantile for few groups (Korn and Graubard 1998; Dean and Pagano 2015).
- A mean over benchmarks joins their intervals by squares (Newcombe 1998; Zou and Donner 2008).
"""

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import ScoresError

CONFIDENCE = 0.95
"""Of the intervals that are stored with scores."""
RESAMPLES = 2_000
FEW = 10
"""Units below which a bootstrap interval is known to be too narrow."""
SCALES = (1.0, 10.0, 100.0)
"""Ranges from 0 that metrics have: shares, a judge's marks, percent."""
SAME = 1e-9
"""Differences below this are none."""
BLOCK = 2_000_000
"""Values drawn at once by the bootstrap."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An interval holds the true mean at the confidence it was asked for; unit of the metric."""

    low: float
    high: float


def wilson(share: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Return Wilson's score interval of a share among `n` items (an effective n may be broken)."""
    z = _z(confidence)
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(max(0.0, share * (1 - share)) / n + (z / (2 * n)) ** 2)
    whole = 1 + z * z / n
    low = 0.0 if share <= 0 else min(share, max(0.0, (middle - half) / whole))
    high = 1.0 if share >= 1 else max(share, min(1.0, (middle + half) / whole))
    return Interval(low, high)


def jeffreys(share: float, n: float, confidence: float = CONFIDENCE) -> Interval:
    """Return Jeffreys' interval: quantiles of Beta(right + ½, wrong + ½), and 0 or 1 at the ends.

    Brown, Cai and DasGupta (2001) set the lower bound to 0 where nothing is right, and the upper
    one to 1 where nothing is wrong.
    """
    from scipy.special import betaincinv  # pyright: ignore[reportMissingTypeStubs]

    a, b, tail = share * n + 0.5, (1 - share) * n + 0.5, (1 - confidence) / 2
    low = 0.0 if share <= 0 else float(betaincinv(a, b, tail))
    high = 1.0 if share >= 1 else float(betaincinv(a, b, 1 - tail))
    return Interval(low, high)


def interval_of(
    values: Sequence[float],
    groups: Sequence[str] = (),
    confidence: float = CONFIDENCE,
    share: Literal["wilson", "jeffreys"] = "wilson",
    seed: int = 0,
) -> Interval:
    """Return the interval of the mean of one value an item; it always has a width.

    `groups` names the passage of each item ("" where it has none), or is empty. ScoresError when a
    value is NaN or infinite.
    """
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ScoresError("a mean over answers worth NaN or infinity has no interval")
    sums, sizes = cluster_sums(array, groups)
    of_share = jeffreys if share == "jeffreys" else wilson
    if np.isin(array, (0.0, 1.0)).all():
        return of_share(float(array.mean()), effective_size(array, groups, confidence), confidence)
    residuals = sums - sizes * array.mean()
    if len(sums) >= FEW and np.abs(residuals).max() > 1e-12 * max(1.0, np.abs(array).max()):
        return _bca(sums, sizes, confidence, seed)
    size = effective_size(array, groups, confidence)
    return _without_resampling(array, size, confidence)


def stated_interval(
    value: float, n: int, stderr: float | None, confidence: float = CONFIDENCE
) -> Interval:
    """Return an interval from a score's value, number of items and standard error alone.

    For scores that carry no interval (an earlier format, or from elsewhere): Wilson's for values
    within a known range, which is never too narrow without groups, else ±z standard errors.
    """
    for scale in SCALES:
        if 0 <= value <= scale:
            low, high = wilson(value / scale, n, confidence)
            return Interval(low * scale, high * scale)
    scale = max(1.0, abs(value))
    half = _z(confidence) * stderr if stderr and stderr > 1e-9 * scale else scale
    return Interval(value - half, value + half)


def mean_interval(parts: Iterable[tuple[float, float, float]]) -> Interval:
    """Return the interval of a mean over independent benchmarks, from (value, low, high) of each.

    low = m − √Σ(v − l)² / k and high = m + √Σ(h − v)² / k, k benchmarks of mean m.
    """
    every = list(parts)
    mean = sum(value for value, _, _ in every) / len(every)
    below = math.sqrt(sum((value - low) ** 2 for value, low, _ in every)) / len(every)
    above = math.sqrt(sum((high - value) ** 2 for value, _, high in every)) / len(every)
    return Interval(mean - below, mean + above)


def paired_interval(
    ours: int,
    theirs: int,
    n: int,
    confidence: float = CONFIDENCE,
    worth: tuple[float, float] = (1.0, 1.0),
) -> Interval:
    """Return the interval of a paired difference of shares; it always has a width.

    Of `n` items one side alone has `ours` right and the other alone `theirs`; the difference is
    b − c with b = ours / n and c = theirs / n. Wilson's intervals (l, u) of both are joined by
    squares (Newcombe 1998, Statistics in Medicine 17, 2635; Zou and Donner 2008), with the
    correlation −ρ that counts of exclusive events have,
    ρ = √(bc / ((1 − b)(1 − c))):
    low = b − c − √((b − l_b)² + (u_c − c)² + 2ρ (b − l_b)(u_c − c)), and high alike.

    `worth` is what a gain and a loss are worth on average, where that is not 1: b − l_b and b are
    multiplied by the first, u_c − c and c by the second. It is taken as known.
    """
    b, c = ours / n, theirs / n
    (low_b, high_b), (low_c, high_c) = (wilson(share, n, confidence) for share in (b, c))
    mixed = math.sqrt(b * c / ((1 - b) * (1 - c))) if 0 < b < 1 and 0 < c < 1 else 0.0

    gain, loss = worth

    def joined(first: float, second: float) -> float:
        return math.sqrt(max(0.0, first**2 + second**2 + 2 * mixed * (first * second)))

    difference = gain * b - loss * c
    return Interval(
        difference - joined(gain * (b - low_b), loss * (high_c - c)),
        difference + joined(gain * (high_b - b), loss * (c - low_c)),
    )


def counted_interval(
    differences: Floats,
    groups: Sequence[str] = (),
    confidence: float = CONFIDENCE,
    most: float = 1.0,
) -> Interval:
    """Return the interval of a mean difference by how many units rose and fell; it has a width.

    `differences` [items] are ours − theirs, of values from 0 to `most`. A unit is an item, or the
    items of one group. The interval is `paired_interval` of the two counts, each worth its mean
    difference. What never happened is taken to be worth the largest difference there was, and
    `most` where nothing differs. It says how often things may happen that few units did not show;
    how large they are is the bootstrap's to say. With right and wrong items and no groups it is
    the interval of the two shares.
    """
    sums, _ = cluster_sums(differences, groups)
    units = sums * (len(sums) / len(differences))  # whose mean is that of the items
    largest = float(np.abs(units).max())
    sides = units[units > SAME], -units[units < -SAME]
    unseen = largest if largest > SAME else most
    gain, loss = (float(side.mean()) if len(side) else unseen for side in sides)
    return paired_interval(len(sides[0]), len(sides[1]), len(units), confidence, (gain, loss))


def clustered_stderr(values: Sequence[float] | Floats, groups: Sequence[str]) -> float | None:
    """Return the standard error of a mean whose items depend on each other within groups.

    √(C / (C − 1) · Σ over C groups of (Σ over their items of (x − mean))²) / n. None for one group.
    Without groups this is the sample standard deviation over the root of n.
    """
    array = np.asarray(values, dtype=np.float64)
    sums, sizes = cluster_sums(array, groups)
    count = len(sums)
    if count < 2:
        return None
    residuals = sums - sizes * array.mean()
    return float(math.sqrt(count / (count - 1) * float((residuals**2).sum())) / len(array))


def effective_size(
    values: Sequence[float] | Floats, groups: Sequence[str], confidence: float = CONFIDENCE
) -> float:
    """Return how many independent items are worth as much as these; n without groups.

    n / design effect · (z / t)², at least 1 and at most n; t is Student's quantile with one degree
    of freedom less than there are groups. Values that are all alike count once a group: they cannot
    tell how much their groups depend.
    """
    array = np.asarray(values, dtype=np.float64)
    sums, _ = cluster_sums(array, groups)
    n, count = len(array), len(sums)
    if count == n:
        return float(n)
    spread = float(array.var(ddof=1)) / n if n > 1 else 0.0
    error = clustered_stderr(array, groups)
    if spread == 0 or error is None:
        return float(count)
    design_effect = error**2 / spread
    few = (_z(confidence) / _student(confidence, count - 1)) ** 2
    return float(max(1.0, min(n, n / design_effect * few if design_effect > 0 else n)))


def cluster_sums(values: Floats, groups: Sequence[str]) -> tuple[Floats, Floats]:
    """Return the sum and the number of items of each group; one that has none stands alone."""
    if not any(groups):
        return values, np.ones(len(values))
    own = [group or f"\0{number}" for number, group in enumerate(groups)]
    numbers = {name: place for place, name in enumerate(dict.fromkeys(own))}
    places = np.array([numbers[name] for name in own])
    sums = np.bincount(places, weights=values).astype(np.float64)
    return sums, np.bincount(places).astype(np.float64)


def resampled_ratios(
    sums: Floats, sizes: Floats, resamples: int, generator: np.random.Generator
) -> Floats:
    """Return the means of items of `resamples` draws of whole groups, shape [resamples]."""
    n = len(sums)
    ratios = np.empty(resamples)
    step = max(1, BLOCK // n)
    for start in range(0, resamples, step):
        drawn = generator.integers(0, n, size=(min(step, resamples - start), n))
        ratios[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return ratios


def _bca(sums: Floats, sizes: Floats, confidence: float, seed: int) -> Interval:
    """The BCa interval of Σ sums / Σ sizes over drawn units, acceleration by the jackknife."""
    normal = NormalDist()
    ratios = resampled_ratios(sums, sizes, RESAMPLES, np.random.default_rng(seed))
    value = sums.sum() / sizes.sum()
    below = (float((ratios < value).mean()) + float((ratios <= value).mean())) / 2
    least = 0.5 / RESAMPLES
    bias = normal.inv_cdf(min(1 - least, max(least, below)))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    apart = left_out.mean() - left_out
    acceleration = float((apart**3).sum() / (6 * float((apart**2).sum()) ** 1.5))
    ends: list[float] = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shift = bias + normal.inv_cdf(tail)
        ends.append(normal.cdf(bias + shift / (1 - acceleration * shift)))
    low, high = (float(each) for each in np.quantile(ratios, ends))
    return Interval(min(low, float(value)), max(high, float(value)))


def _without_resampling(values: Floats, size: float, confidence: float) -> Interval:
    """The interval of values that are few or all alike."""
    mean = float(values.mean())
    for scale in SCALES:
        if values.min() >= 0 and values.max() <= scale:
            low, high = wilson(mean / scale, size, confidence)
            return Interval(low * scale, high * scale)
    n = len(values)
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    if spread == 0:  # of a metric without a range nothing more is known
        half = max(1.0, abs(mean))
    else:
        half = _student(confidence, n - 1) * spread / math.sqrt(size)
    return Interval(mean - half, mean + half)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _student(confidence: float, freedom: int) -> float:
    """Student's t quantile, two-sided."""
    from scipy.special import stdtrit  # pyright: ignore[reportMissingTypeStubs]

    return float(stdtrit(freedom, (1 + confidence) / 2))
