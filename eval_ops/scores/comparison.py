"""Compares two checkpoints on the very same items: better, worse or undecided.

What is compared is what the leaderboard shows: the mean over benchmarks of the mean over items.
These questions are asked of the item-by-item differences, and all must agree on a verdict.

- Paired bootstrap (Efron 1979; Koehn 2004 for paired system comparison): items are drawn with
  replacement within each benchmark, some thousand times; the middle share of the means that come
  out is the interval.
- McNemar's test (1947), exact and two-sided, for right/wrong items: among the items on which just
  one of the two is right, how surprising is this imbalance if either were as likely? It keeps a
  handful of items, where the bootstrap is overconfident, from deciding anything.
- An interval by squares of the benchmarks' own (Newcombe 1998; Zou and Donner 2008), made of how
  many items (or groups) rose and fell: it keeps a benchmark of few items, on which a bootstrap may
  see no difference at all, from being taken for certain. Where it is not clear of 0 it is the
  interval that is told.

Items of one group (a passage) are drawn together by the bootstrap (cluster bootstrap). In McNemar's
place stands a sign-flip test over groups (Fisher 1935): if neither is better, the summed difference
of each group could as well have had the other sign. The same test, item by item, stands in its
place where items are not simply right or wrong.
"""

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np

from eval_ops.errors import PairingError
from eval_ops.scores.intervals import (
    SCALES,
    cluster_sums,
    counted_interval,
    mean_interval,
    resampled_ratios,
)
from eval_ops.scores.paired_answers import Differences, Pair, chosen_benchmarks, paired_answers
from eval_ops.scores.scores import SuiteScores

Verdict = Literal["better", "worse", "undecided"]

RESAMPLES = 10_000
FEW_VALUES = 64
BLOCK = 4_000_000
MOST_EXACT = 14
"""Groups whose signs are flipped in every way; of more, FLIPS ways are drawn by a fixed seed."""
FLIPS = 10_000
ROUNDING = 1e-9
"""Sums that differ by less are the same."""


@dataclass(frozen=True)
class Comparison:
    """How ours compares with theirs; differences are ours − theirs, in shares (0.01 = a point).

    `low` and `high` bound the bootstrap interval at `confidence`. `only_ours` and `only_theirs`
    count the items that just one of the two got right; `p_value` is McNemar's. These three are
    None when items are not simply right or wrong. `n` counts items. `clusters` counts groups where
    items share passages, else it is None; `flip_p_value` is the sign-flip test's, with groups and
    where there is no McNemar's.
    """

    verdict: Verdict
    difference: float
    low: float
    high: float
    confidence: float
    n: int
    p_value: float | None = None
    only_ours: int | None = None
    only_theirs: int | None = None
    clusters: int | None = None
    flip_p_value: float | None = None

    @property
    def surprise(self) -> float:
        """The p-value that the verdict heeds: of the sign-flip test where it was made."""
        p_value = self.p_value if self.flip_p_value is None else self.flip_p_value
        return 1.0 if p_value is None else p_value

    def to_json(self) -> str:
        """Write all fields as one JSON object."""
        return json.dumps(asdict(self))


def compare(
    ours: SuiteScores,
    theirs: SuiteScores,
    *,
    split: str = "test",
    benchmarks: Collection[str] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two checkpoints' answers to the same items of `split`, over some or all benchmarks.

    `confidence` is above 0 and below 1. The same arguments give the same numbers. Raises
    PairingError when the two were not scored on the same suite, or do not carry their samples.
    """
    if ours.suite_digest != theirs.suite_digest:
        raise PairingError(
            f"scores on suite '{ours.suite}' ({ours.suite_digest[:12]}) cannot be compared with "
            f"scores on suite '{theirs.suite}' ({theirs.suite_digest[:12]}): the items, the task "
            "versions or the version of lm-eval differ; score both on the same suite"
        )
    pairs = {
        name: paired_answers(ours, theirs, name, split)
        for name in chosen_benchmarks(ours, benchmarks)
    }
    return compare_answers(pairs, confidence=confidence, resamples=resamples, seed=seed)


def compare_answers(
    pairs: Mapping[str, Pair],
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare two sides' answers by benchmark; `compare` says what the arguments are."""
    differences = {name: pair.ours - pair.theirs for name, pair in pairs.items()}
    groups = {name: pair.groups for name, pair in pairs.items() if pair.groups}
    low, high = paired_bootstrap(differences, confidence, resamples, seed, groups)
    low, high = _heeding_few_items(low, high, pairs.values(), confidence)
    difference = sum(float(d.mean()) for d in differences.values()) / len(differences)
    n = sum(len(d) for d in differences.values())
    clusters = flip_p_value = p_value = only_ours = only_theirs = None
    if all(np.isin(np.concatenate(pair[:2]), (0.0, 1.0)).all() for pair in pairs.values()):
        only_ours = sum(int((d > 0).sum()) for d in differences.values())
        only_theirs = sum(int((d < 0).sum()) for d in differences.values())
        p_value = mcnemar(only_ours, only_theirs)
    if groups or p_value is None:
        flip_p_value = sign_flip(differences, groups, seed)
    if groups:
        clusters = sum(len(cluster_sums(d, groups.get(k, ()))[0]) for k, d in differences.items())
    found = Comparison(
        "undecided",
        difference,
        low,
        high,
        confidence,
        n,
        p_value,
        only_ours,
        only_theirs,
        clusters,
        flip_p_value,
    )
    return replace(found, verdict=_verdict(found))


def _verdict(found: Comparison) -> Verdict:
    """What interval and test say together; right and wrong items must lean to the same side too."""
    if found.surprise > 1 - found.confidence:
        return "undecided"
    lean = 0 if found.only_ours is None else found.only_ours - (found.only_theirs or 0)
    agrees = found.clusters is not None or found.only_ours is None
    if found.low > 0 and (agrees or lean > 0):
        return "better"
    if found.high < 0 and (agrees or lean < 0):
        return "worse"
    return "undecided"


def _heeding_few_items(
    low: float, high: float, pairs: Iterable[Pair], confidence: float
) -> tuple[float, float]:
    """The bootstrap's interval; the wider one by squares where that one alone is not clear of 0.

    Of few items that rarely differ a draw may show no difference at all, and then the bootstrap
    takes the benchmark for certain: beside a benchmark of many items it would decide the mean.
    Where nothing differs no draw varies, and the one by squares says what was not seen.
    """
    parts: list[tuple[float, float, float]] = []
    for pair in pairs:
        each = pair.ours - pair.theirs
        largest = float(max(pair.ours.max(), pair.theirs.max()))
        most = next((scale for scale in SCALES if largest <= scale), largest)
        own = counted_interval(each, pair.groups, confidence, most)
        parts.append((float(each.mean()), own.low, own.high))
    wide = mean_interval(parts)
    if low == high == 0 or low > 0 >= wide.low or high < 0 <= wide.high:
        return min(low, wide.low), max(high, wide.high)
    return low, high


def paired_bootstrap(
    differences: dict[str, Differences],
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> tuple[float, float]:
    """Return the interval (low, high) for the mean over benchmarks of mean differences.

    `differences` holds, for each benchmark, one difference an item, shape [n]; `groups` names the
    passage of each item ("" for none) of the benchmarks that have passages. Negating all
    differences mirrors the interval exactly.
    """
    sign = _orientation(list(differences.values()))
    means = np.zeros(resamples)
    for name, values in differences.items():
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        passages = groups.get(name) if groups else None
        if passages:
            sums, sizes = cluster_sums(sign * values, passages)
            means += resampled_ratios(sums, sizes, resamples, generator)
        else:
            means += _resampled_means(sign * values, resamples, generator)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means / len(differences), [tail, 1 - tail])
    low, high = float(low) + 0.0, float(high) + 0.0
    return (low, high) if sign > 0 else (-high + 0.0, -low + 0.0)


def mcnemar(only_ours: int, only_theirs: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Under the null hypothesis each of the n = `only_ours` + `only_theirs` items on which one side
    alone is right falls to either side like a fair coin, so
    p = min(1, 2 · Σ C(n, k) / 2ⁿ over k = 0 … min(only_ours, only_theirs)).
    """
    n = only_ours + only_theirs
    term = total = 1
    for k in range(min(only_ours, only_theirs)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)


def sign_flip(
    differences: Mapping[str, Differences],
    groups: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> float:
    """Return the two-sided p-value of the sign-flip test of the mean over benchmarks.

    Under the null hypothesis the difference of each group (of each item, without groups) has
    either sign with equal chance. p is the share of all sign patterns whose mean is at least as far
    from 0 as the one seen; of more than MOST_EXACT groups that differ, FLIPS patterns are drawn and
    p = (1 + those) / (1 + FLIPS) (Phipson and Smyth 2010), which is never 0.
    """
    parts = [
        cluster_sums(values, groups.get(name, ()) if groups else ())[0] / len(values)
        for name, values in differences.items()
    ]
    shares = np.concatenate(parts)
    shares = shares[shares != 0]
    count = len(shares)
    least = abs(float(shares.sum())) * (1 - ROUNDING)
    if count <= MOST_EXACT:
        patterns = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1
        return float((np.abs((1.0 - 2.0 * patterns) @ shares) >= least).mean())
    generator, as_far = np.random.default_rng(seed), 0
    step = max(1, BLOCK // count)
    for start in range(0, FLIPS, step):
        drawn = generator.integers(0, 2, size=(min(step, FLIPS - start), count), dtype=np.int8)
        as_far += int((np.abs((1.0 - 2.0 * drawn) @ shares) >= least).sum())
    return (1 + as_far) / (1 + FLIPS)


def _orientation(differences: Sequence[Differences]) -> float:
    """Return +1 or −1, the opposite for negated input, so that a comparison mirrors exactly."""
    total = sum(float(values.mean()) for values in differences)
    if total == 0:
        flat = np.concatenate(differences)
        unequal = flat[flat != 0]
        total = float(unequal[0]) if len(unequal) else 1.0
    return 1.0 if total > 0 else -1.0


def _resampled_means(
    values: Differences, resamples: int, generator: np.random.Generator
) -> Differences:
    """Return the means of `resamples` samples with replacement, shape [resamples].

    With few distinct values (right/wrong items have three: −1, 0, 1) only their counts matter,
    and those are multinomial: exact, and free of n.
    """
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= FEW_VALUES:
        drawn = generator.multinomial(n, counts / n, size=resamples)
        return drawn @ distinct / n
    means = np.empty(resamples)
    step = max(1, BLOCK // n)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        indices = generator.integers(0, n, size=(rows, n))
        means[start : start + rows] = values[indices].mean(axis=1)
    return means
