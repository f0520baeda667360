"""The smallest difference a suite can show: against exact power, by laws, from earlier scores."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from eval_ops.scores.comparison import mcnemar
from eval_ops.scores.power import Expected, expected_from, smallest_difference, suite_power
from eval_ops.scores.scores import SuiteScores, summarize

ScoresOf = Callable[..., SuiteScores]


def exact_power(n: int, discordance: float, difference: float) -> float:
    """McNemar's exact test: the chance of p ≤ 5 % in favour of the better side."""
    power = 0.0
    differing = np.arange(n + 1)
    chances = stats.binom.pmf(differing, n, discordance)
    for m in differing[chances > 1e-9]:
        lost = np.arange(m + 1)
        sure = [k for k in lost if 2 * k < m and mcnemar(int(m - k), int(k)) <= 0.05]
        share = (1 - difference / discordance) / 2
        power += float(chances[m]) * float(np.sum(stats.binom.pmf(sure, m, share)))
    return power


@pytest.mark.parametrize(("n", "discordance"), [(60, 0.3), (200, 0.5), (200, 0.1), (400, 0.25)])
def test_at_the_smallest_difference_the_exact_test_has_the_power(
    n: int, discordance: float
) -> None:
    difference = smallest_difference(n, discordance)
    assert exact_power(n, discordance, difference) == pytest.approx(0.8, abs=0.06)
    assert exact_power(n, discordance, difference / 2) < 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5_000), st.floats(0.01, 0.9))
def test_more_items_show_smaller_differences(n: int, discordance: float) -> None:
    here = smallest_difference(n, discordance)
    assert 0 < here <= 1
    assert smallest_difference(4 * n, discordance) <= here
    assert smallest_difference(n, discordance, power=0.9) >= here
    assert smallest_difference(n, discordance, confidence=0.99) >= here


def test_a_handful_of_items_shows_nothing() -> None:
    assert smallest_difference(4) == 1.0
    # Six items that only one side has right are the fewest that McNemar's test believes (2 / 2⁶).
    assert smallest_difference(6) > 0.9


def test_the_worst_is_assumed_where_nothing_is_known() -> None:
    told = suite_power("s", {"a": Expected(200, 50), "b": Expected(200, 200)})
    assert told.benchmarks["a"] == smallest_difference(50)
    assert told.benchmarks["b"] == smallest_difference(200)
    assert told.benchmarks["b"] < told.benchmarks["a"]
    # The mean has the variance ½ (1/50 + 1/200) / 4: that of 160 items.
    assert told.mean == pytest.approx(smallest_difference(160))
    text = told.to_text()
    assert text.startswith("suite s: a difference of ")
    assert (
        "with probability 80 % at 95 % confidence, if two checkpoints differ at the worst" in text
    )
    assert "(200 items in 50 groups), b " in text


def test_earlier_scores_say_how_often_two_differ(scores_of: ScoresOf) -> None:
    first = scores_of(a=([], [1, 1, 0, 0] * 10))
    other = scores_of(a=([], [1, 0, 0, 0] * 10))  # one of four items differs
    (told,) = expected_from([first, other]).values()
    assert (told.n, told.clusters, told.discordance, told.known) == (40, 40, 0.25, True)
    assert suite_power("s", {"a": told}).benchmarks["a"] == smallest_difference(40, 0.25)
    assert "as often as earlier scores do" in suite_power("s", {"a": told}).to_text()
    for scores in ([first], [first, first]):
        assert expected_from(scores)["a"] == Expected(40, 40)


def test_passages_make_a_suite_smaller(scores_of: ScoresOf) -> None:
    def grouped(values: list[int]) -> SuiteScores:
        bare = scores_of(a=([], values))
        samples = tuple(
            replace(sample, group=str(number // 4)) for number, sample in enumerate(bare.samples)
        )
        return replace(bare, scores=summarize(samples, "acc", "v"), samples=samples)

    draw = np.random.default_rng(0)
    whole = [int(right) for right in draw.random(20) < 0.5 for _ in range(4)]
    (told,) = expected_from([grouped([1] * 80), grouped(whole)]).values()
    assert (told.n, told.clusters) == (80, 20)
    assert told.effective == pytest.approx(20, rel=0.1)
