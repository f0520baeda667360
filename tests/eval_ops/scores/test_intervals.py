"""Intervals: worked by hand, against scipy, and laws that every one of them keeps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval_ops.scores.intervals import (
    clustered_stderr,
    effective_size,
    interval_of,
    jeffreys,
    mean_interval,
    stated_interval,
    wilson,
)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (299, 300)])
def test_wilson_is_that_of_scipy(right: int, n: int) -> None:
    for confidence in (0.9, 0.95, 0.99):
        told = stats.binomtest(right, n).proportion_ci(confidence, method="wilson")
        assert wilson(right / n, n, confidence) == pytest.approx((told.low, told.high), abs=1e-12)


def test_jeffreys_is_the_beta_quantile() -> None:
    low, high = jeffreys(7 / 30, 30)
    assert (low, high) == pytest.approx(stats.beta(7.5, 23.5).ppf([0.025, 0.975]))
    assert jeffreys(0, 5)[0] == 0.0
    assert jeffreys(1, 5)[1] == 1.0
    assert interval_of([1, 0, 0], share="jeffreys") == jeffreys(1 / 3, 3)


def test_bca_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).beta(0.5, 2.0, 60)
    told = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    width = told.high - told.low
    assert interval_of(list(values)) == pytest.approx((told.low, told.high), abs=0.06 * width)


def test_clustered_error_by_hand() -> None:
    # Two passages of two items, 1 1 and 0 0: mean ½; the residuals of the passages sum to 1 and −1;
    # √(2/1 · (1 + 1)) / 4 = ½. Alone, the four items would have √(1/3 / 4) = 0.29.
    assert clustered_stderr([1, 1, 0, 0], ["p", "p", "q", "q"]) == 0.5
    assert clustered_stderr([1, 1, 0, 0], ["", "", "", ""]) == pytest.approx(math.sqrt(1 / 12))
    assert clustered_stderr([1, 0], ["p", "p"]) is None


def test_items_of_one_passage_are_worth_fewer() -> None:
    values = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0] * 20
    groups = [str(number // 4) for number in range(160)]
    alone, together = interval_of(values), interval_of(values, groups)
    # All items of a passage agree: 40 passages are worth 40 items, a little less by Student's t.
    assert 36 < effective_size(values, groups) < 40
    assert effective_size(values, []) == 160
    assert together.high - together.low > 1.9 * (alone.high - alone.low)
    # All alike: nothing tells how much passages depend, and each counts once.
    assert interval_of([1.0] * 160, groups) == wilson(1.0, 40)
    assert interval_of([1.0] * 4, ["p"] * 4) == wilson(1.0, 1)


def test_the_clustered_interval_covers_and_the_plain_one_does_not() -> None:
    """Passages of 8 items that mostly agree: the plain interval misses the truth too often."""
    draw, groups = np.random.default_rng(5), [str(number // 8) for number in range(200)]
    rounds, held = 300, {"plain": 0, "clustered": 0, "values": 0}
    for _ in range(rounds):
        skill = np.repeat(draw.beta(0.6, 0.4, 25), 8)
        right = (draw.random(200) < skill).astype(float)
        for name, passages in (("plain", []), ("clustered", groups)):
            low, high = interval_of(list(right), passages)
            held[name] += low <= 0.6 <= high
        low, high = interval_of(list(0.2 + 0.6 * right), groups)
        held["values"] += low <= 0.2 + 0.6 * 0.6 <= high
    # 95 % of 300 less four standard deviations of a binomial count.
    least = 0.95 * rounds - 4 * math.sqrt(0.95 * 0.05 * rounds)
    assert held["clustered"] >= least
    assert held["values"] >= least - 0.02 * rounds  # the bootstrap is a little too narrow at 25
    assert held["plain"] < least


values_of_metrics = st.one_of(
    st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.lists(st.floats(0, 10), min_size=1, max_size=40),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12),
    st.floats(0, 100).map(lambda value: [value] * 15),
)


@settings(max_examples=150, deadline=None)
@given(values_of_metrics, st.integers(1, 5))
def test_every_interval_has_a_width_and_holds_its_mean(values: list[float], size: int) -> None:
    groups = [str(number // size) if size > 1 else "" for number in range(len(values))]
    low, high = interval_of(values, groups)
    mean = float(np.mean(values))
    slack = 1e-9 * max(1.0, abs(mean))
    assert low - slack <= mean <= high + slack
    assert high > low
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert interval_of(values, groups) == (low, high)


@settings(max_examples=60, deadline=None)
@given(st.floats(-5, 200), st.integers(1, 50), st.one_of(st.none(), st.floats(0, 3)))
def test_a_stated_score_has_a_width_too(value: float, n: int, stderr: float | None) -> None:
    low, high = stated_interval(value, n, stderr)
    assert low <= value <= high
    assert low < high


def test_mean_interval_by_hand() -> None:
    # ½ ± ¼ and ¾ ± ¼: mean 5/8, halves √(1/16 + 1/16) / 2.
    half = math.sqrt(2 / 16) / 2
    assert mean_interval([(0.5, 0.25, 0.75), (0.75, 0.5, 1.0)]) == pytest.approx(
        (0.625 - half, 0.625 + half)
    )
