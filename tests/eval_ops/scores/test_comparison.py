import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_ops.errors import PairingError
from eval_ops.scores.comparison import compare, mcnemar, paired_bootstrap, sign_flip
from eval_ops.scores.intervals import (
    clustered_stderr,
    counted_interval,
    paired_interval,
    wilson,
)
from eval_ops.scores.scores import SuiteScores, summarize

ScoresOf = Callable[..., SuiteScores]


def test_mcnemar_by_hand() -> None:
    # One side alone is right on 1 item, the other on 5: n = 6, 2 · (C(6,0) + C(6,1)) / 2⁶ = 14/64.
    assert mcnemar(1, 5) == mcnemar(5, 1) == 14 / 64
    # 0 against 6: 2 · 1/64; an even split proves nothing; nor do no items at all.
    assert mcnemar(0, 6) == 2 / 64
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_mcnemar_is_twice_the_binomial_tail() -> None:
    for ours, theirs in [(2, 9), (40, 60), (700, 800)]:
        n = ours + theirs
        tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(ours + 1))
        assert mcnemar(ours, theirs) == float(2 * tail)


def test_comparison_by_hand(scores_of: ScoresOf) -> None:
    # herbs: ours 8/8, theirs 2/8, so +6/8; idioms: both 2/4, so 0. Mean difference 3/8.
    ours = scores_of(herbs=([], [1] * 8), idioms=([], [1, 1, 0, 0]))
    theirs = scores_of(herbs=([], [1, 1, 0, 0, 0, 0, 0, 0]), idioms=([], [1, 1, 0, 0]))
    result = compare(ours, theirs)
    assert result.difference == 3 / 8
    assert (result.only_ours, result.only_theirs, result.n) == (6, 0, 12)
    assert result.p_value == 2 / 64
    # Half the mean of 8 draws that are 1 with probability 6/8: the 2.5 % point of Bin(8, 6/8) is
    # 3, its 97.5 % point 8.
    assert (result.low, result.high) == (3 / 16, 8 / 16)
    assert result.verdict == "better"
    assert compare(theirs, ours).verdict == "worse"
    only = compare(ours, theirs, benchmarks=["idioms"])
    assert (only.verdict, only.difference, only.low) == ("undecided", 0, -only.high)
    assert only.high == pytest.approx(wilson(0, 4).high)


def test_a_handful_of_items_decides_nothing(scores_of: ScoresOf) -> None:
    # The bootstrap alone would be sure: every resample of +1, +1, +1 has mean +1.
    result = compare(scores_of(a=([], [1, 1, 1])), scores_of(a=([], [0, 0, 0])))
    assert (result.low, result.high, result.p_value) == (1.0, 1.0, 0.25)
    assert result.verdict == "undecided"


def test_interval_has_the_width_that_theory_gives() -> None:
    draw = np.random.default_rng(0)
    values = {"a": draw.normal(0.1, 1.0, 400), "b": draw.normal(0.1, 2.0, 900)}
    low, high = paired_bootstrap(values)
    error = np.sqrt(sum(v.var() / len(v) for v in values.values())) / 2
    middle = np.mean([v.mean() for v in values.values()])
    assert low == pytest.approx(middle - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(middle + 1.96 * error, abs=0.1 * error)
    wide = paired_bootstrap(values, confidence=0.99)
    assert wide[0] < low < high < wide[1]


def test_counting_distinct_values_equals_drawing_items() -> None:
    draw = np.random.default_rng(1)
    coarse = draw.choice([-1.0, 0.0, 1.0], size=300, p=[0.1, 0.5, 0.4])
    fine = coarse + 1e-9 * draw.normal(size=300)
    assert paired_bootstrap({"a": coarse}) == pytest.approx(paired_bootstrap({"a": fine}), abs=8e-3)


def test_a_million_answers_are_counted_not_drawn() -> None:
    """Drawing ten thousand times a million items would take minutes; their counts take none."""
    values = np.repeat([1.0, 0.0, -1.0], [300_000, 500_000, 200_000])
    low, high = paired_bootstrap({"a": values})
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (low, high) == (
        pytest.approx(0.1 - half, abs=0.1 * half),
        pytest.approx(0.1 + half, abs=0.1 * half),
    )


def test_values_of_many_kinds_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the blocks, the same items are drawn."""
    values = {"a": np.linspace(-1, 2, 100)}
    whole = paired_bootstrap(values, resamples=500)
    for block in (1, 250, 100 * 500):
        monkeypatch.setattr("eval_ops.scores.comparison.BLOCK", block)
        assert paired_bootstrap(values, resamples=500) == whole


def test_no_bound_is_minus_nought() -> None:
    for values in ([-1.0, *[0.0] * 30], [1.0, *[0.0] * 30], [0.0] * 4, [-0.0] * 4):
        bounds = paired_bootstrap({"a": np.array(values)})
        assert "-0.0" not in map(repr, map(float, bounds))


answers = st.lists(st.sampled_from([0, 1]), min_size=4, max_size=12)
shares = st.lists(st.floats(0, 1), min_size=4, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.one_of(answers, shares), st.integers(0, 2**32 - 1))
def test_swapping_the_sides_mirrors_everything(
    scores_of: ScoresOf, values: list, shift: int
) -> None:
    half = len(values) // 2
    ours = scores_of(a=([], values[:half]))
    theirs = scores_of(a=([], values[-half:]))
    there, back = (
        compare(x, y, seed=shift, resamples=200) for x, y in [(ours, theirs), (theirs, ours)]
    )
    assert back.difference == -there.difference
    assert (back.low, back.high) == (-there.high, -there.low)
    assert back.p_value == there.p_value
    mirrored = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert back.verdict == mirrored[there.verdict]
    assert there.low <= there.high


@settings(max_examples=20, deadline=None)
@given(answers)
def test_a_checkpoint_is_neither_better_nor_worse_than_itself(
    scores_of: ScoresOf, values: list
) -> None:
    scores = scores_of(a=([], values))
    result = compare(scores, scores)
    assert (result.verdict, result.difference, result.low) == ("undecided", 0, -result.high)
    assert result.high == pytest.approx(wilson(0, len(values)).high)  # never ±0


def test_values_between_right_and_wrong_have_no_mcnemar(scores_of: ScoresOf) -> None:
    result = compare(scores_of(a=([], [0.5, 0.75] * 9)), scores_of(a=([], [0.25, 0.5] * 9)))
    assert (result.verdict, result.p_value, result.only_ours) == ("better", None, None)
    assert (result.low, result.high) == (0.25, 0.25)
    groups = [f"p{number // 2}" for number in range(18)]
    same = scores_of(a=([], [0.5, 0.75] * 9))
    assert compare(same, same).high == pytest.approx(wilson(0, 18).high)
    samples = tuple(replace(s, group=g) for s, g in zip(same.samples, groups, strict=True))
    by_passage = replace(same, samples=samples)
    assert compare(by_passage, by_passage).high == pytest.approx(wilson(0, 9).high)


def test_same_arguments_same_numbers(scores_of: ScoresOf) -> None:
    pair = scores_of(a=([], [1, 0, 1, 1] * 9)), scores_of(a=([], [1, 1, 0, 0] * 9))
    assert compare(*pair) == compare(*pair)
    assert compare(*pair).to_json().startswith('{"verdict": "')


def test_what_cannot_be_paired(scores_of: ScoresOf) -> None:
    ours, theirs = scores_of(a=([1], [1, 0])), scores_of(a=([1], [1, 0]))
    with pytest.raises(PairingError, match=r"cannot be compared with scores on suite 'tiny'"):
        compare(ours, replace(theirs, suite_digest="other"))
    with pytest.raises(PairingError, match=r"1 items were scored on one side only"):
        compare(ours, scores_of(a=([1], [1, 0, 1])))
    with pytest.raises(PairingError, match=r"has no benchmark b; it has a"):
        compare(ours, theirs, benchmarks=["a", "b"])
    with pytest.raises(PairingError, match="carry no samples"):
        compare(ours, replace(theirs, samples=()))


def grouped(scores: SuiteScores, size: int) -> SuiteScores:
    """The same answers, `size` items a passage."""
    samples = tuple(
        replace(sample, group=f"passage {number // size}")
        for number, sample in enumerate(scores.samples)
    )
    return replace(scores, samples=samples, scores=summarize(samples, "acc", "v"))


def test_sign_flip_by_hand() -> None:
    # +1, +1, +1: of the 8 sign patterns only +++ and −−− are as far from 0.
    assert sign_flip({"a": np.array([1.0, 1.0, 1.0])}) == 2 / 8
    # +2, −1: sums 1, 3, −3, −1: all are as far as 1.
    assert sign_flip({"a": np.array([2.0, -1.0, 0.0])}) == 1.0
    assert sign_flip({"a": np.zeros(5)}) == 1.0
    # Two passages, +1 +1 and +1 +1: patterns ++ and −− of four.
    assert sign_flip({"a": np.ones(4)}, {"a": ["p", "p", "q", "q"]}) == 2 / 4


def test_sign_flip_of_right_and_wrong_items_is_mcnemars() -> None:
    for ours, theirs in [(2, 9), (4, 5), (0, 6)]:
        values = np.array([1.0] * ours + [-1.0] * theirs)
        assert sign_flip({"a": values}) == pytest.approx(mcnemar(ours, theirs))
    many = np.array([1.0] * 40 + [-1.0] * 70)
    drawn, exact = sign_flip({"a": many}), mcnemar(40, 70)
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact / 10_000) + 1e-4)


def test_items_of_one_passage_decide_less(scores_of: ScoresOf) -> None:
    """Eight items that one passage gives are one piece of evidence, not eight."""
    ours, theirs = scores_of(a=([], [1] * 8 + [1, 0] * 8)), scores_of(a=([], [0] * 8 + [1, 0] * 8))
    assert compare(ours, theirs).verdict == "better"
    together = compare(grouped(ours, 8), grouped(theirs, 8))
    assert (together.verdict, together.clusters, together.n) == ("undecided", 3, 24)
    assert together.flip_p_value == 1.0
    assert together.p_value == 2 / 2**8
    assert compare(ours, theirs).clusters is None
    back = compare(grouped(theirs, 8), grouped(ours, 8))
    assert (back.low, back.high, back.flip_p_value) == (-together.high, -together.low, 1.0)


def test_many_passages_decide(scores_of: ScoresOf) -> None:
    ours, theirs = scores_of(a=([], [1, 1, 1, 0] * 15)), scores_of(a=([], [0, 1, 1, 0] * 15))
    found = compare(grouped(ours, 4), grouped(theirs, 4))
    assert (found.verdict, found.clusters) == ("better", 15)
    assert found.flip_p_value is not None
    assert found.flip_p_value < 0.001


def test_the_cluster_bootstrap_has_the_width_of_the_clustered_error() -> None:
    draw = np.random.default_rng(4)
    values = np.repeat(draw.normal(0.1, 1.0, 200), 5) + draw.normal(0, 0.3, 1000)
    groups = [str(number // 5) for number in range(1000)]
    low, high = paired_bootstrap({"a": values}, groups={"a": groups})
    half = 1.96 * (clustered_stderr(values, groups) or 0)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    plain = paired_bootstrap({"a": values})
    assert plain[1] - plain[0] < 0.6 * (high - low)


def test_three_answers_that_are_no_shares_decide_nothing(scores_of: ScoresOf) -> None:
    found = compare(scores_of(a=([], [0.5] * 3)), scores_of(a=([], [0.25] * 3)))
    assert (found.low, found.flip_p_value, found.verdict) == (0.25, 2 / 8, "undecided")


def test_few_items_that_do_not_differ_are_not_certain(scores_of: ScoresOf) -> None:
    """Beside 1000 items with a sure gain, 20 items alike say little: 0 of 20 may be 1 in 6."""
    many = ([], [1] * 200 + [0] * 130 + [1] * 670), ([], [0] * 200 + [1] * 130 + [1] * 670)
    few = ([], [1] * 20)
    found = compare(scores_of(a=many[0], b=few), scores_of(a=many[1], b=few))
    low, high = paired_bootstrap({"a": np.repeat([1.0, -1.0, 0.0], [200, 130, 670])})
    # The bootstrap takes b for certain: half of a's interval. By squares b adds ±16.1 points, which
    # is Wilson's for 0 of 20: 3.84 / 23.84.
    assert low / 2 > 0
    assert found.low == pytest.approx(0.035 - math.hypot(0.0355, 3.8415 / 23.8415) / 2, abs=1e-3)
    assert (found.low < 0 < found.high, found.high > high / 2) == (True, True)
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.verdict == "undecided"
    enough = ([], [1] * 400)
    assert (
        compare(scores_of(a=many[0], b=enough), scores_of(a=many[1], b=enough)).verdict == "better"
    )


def test_few_grades_and_few_passages_that_do_not_differ_are_not_certain(
    scores_of: ScoresOf,
) -> None:
    """The same of values that are no right or wrong, and of items that share passages."""
    many = (
        ([], [0.9] * 200 + [0.5] * 130 + [0.6] * 670),
        ([], [0.5] * 200 + [0.9] * 130 + [0.6] * 670),
    )
    few = ([], [0.7] * 20)
    found = compare(scores_of(a=many[0], b=few), scores_of(a=many[1], b=few))
    low, _ = paired_bootstrap({"a": np.repeat([0.4, -0.4, 0.0], [200, 130, 670])})
    assert low / 2 > 0
    assert found.low == pytest.approx(0.014 - math.hypot(0.0142, 3.8415 / 23.8415) / 2, abs=1e-3)
    assert (found.p_value, found.verdict) == (None, "undecided")
    many = ([], [1] * 400 + [0] * 600), ([], [0] * 400 + [0] * 600)
    few = ([], [1] * 50)
    ours, theirs = (grouped(scores_of(a=side, b=few), 10) for side in many)
    found = compare(ours, theirs)
    # Five passages alike: one more may be lost whole, 3.84 / 8.84 of them at the most.
    assert found.low < 0.2 - 3.8415 / 8.8415 / 2 + 1e-9
    assert (found.clusters, found.verdict) == (105, "undecided")
    ours, theirs = (grouped(scores_of(a=side, b=([], [1] * 500)), 10) for side in many)
    assert compare(ours, theirs).verdict == "better"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_counts_of_right_and_wrong_items_are_two_shares(values: list[float]) -> None:
    array = np.array(values)
    ours, theirs = int((array > 0).sum()), int((array < 0).sum())
    assert counted_interval(array) == pytest.approx(paired_interval(ours, theirs, len(values)))
    assert counted_interval(array / 10, most=0.1) == pytest.approx(
        np.array(counted_interval(array)) / 10
    )
    copies = np.repeat(array, 3)  # three items a passage that fare alike are one unit
    groups = [str(place // 3) for place in range(len(copies))]
    assert counted_interval(copies, groups) == pytest.approx(counted_interval(array))


sizes = st.lists(st.integers(1, 60), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
def test_a_verdict_is_what_interval_and_test_say(
    scores_of: ScoresOf, sizes: list[int], seed: int, ours: float, theirs: float
) -> None:
    """Whatever the numbers of items: nothing is better unless difference, interval and test are."""
    draw = np.random.default_rng(seed)
    first, second = (
        scores_of(**{f"b{k}": ([], draw.random(n) < share) for k, n in enumerate(sizes)})
        for share in (ours, theirs)
    )
    found = compare(first, second, resamples=500)
    assert found.low <= found.difference <= found.high
    assert (found.verdict == "better") <= (found.low > 0 and found.surprise <= 0.05)
    assert (found.verdict == "worse") <= (found.high < 0 and found.surprise <= 0.05)
    assert (found.only_ours, found.only_theirs) != (0, 0) or found.verdict == "undecided"
    back = compare(second, first, resamples=500)
    assert (back.low, back.high) == (-found.high, -found.low)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_the_interval_of_a_paired_difference(n: int, first: float, second: float) -> None:
    """It has a width, holds the difference, lies within ±1, and mirrors when the sides change."""
    ours = round(first * n)
    theirs = round(second * (n - ours))
    low, high = paired_interval(ours, theirs, n)
    assert -1 - 1e-9 <= low <= (ours - theirs) / n <= high <= 1 + 1e-9
    assert high - low > 0
    assert paired_interval(theirs, ours, n) == (-high, -low)
