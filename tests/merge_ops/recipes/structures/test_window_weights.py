"""The weights of a window: laws that hold for all steps, and tables worked out by hand."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_ops.recipes.structures.window_weights import (
    EMA,
    SCHEDULES,
    decay_of,
    of_sum_one,
    schedule_weights,
    sum_problem,
    weights_of_decay,
)

counts = st.integers(2, 40)
steps = st.lists(st.integers(0, 10**7), min_size=1, max_size=30, unique=True).map(sorted)
betas = st.floats(0, 0.9999)


def even(count: int, first: int = 7000, gap: int = 500) -> list[int]:
    return [first + gap * number for number in range(count)]


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=20))
def test_a_decay_is_an_average_and_the_reverse(decay: list[float]) -> None:
    weights = weights_of_decay(decay)
    assert math.fsum(weights) == pytest.approx(1, abs=1e-12)
    assert decay_of(weights) == pytest.approx(decay, abs=1e-12)


@given(counts, st.integers(1, 10**6))
def test_uniform_over_even_steps_is_the_linear_decay(count: int, gap: int) -> None:
    weights = schedule_weights("uniform", even(count, gap=gap))
    assert weights == (1 / count,) * count
    linear = [(count - number) / count for number in range(1, count)]
    assert decay_of(weights) == pytest.approx(linear, abs=1e-14)


@given(counts)
def test_the_other_schedules_over_even_steps_are_those_of_the_literature(count: int) -> None:
    at = range(1, count)
    sqrt = [1 - math.sqrt(number / count) for number in at]
    assert decay_of(schedule_weights("one_minus_sqrt", even(count))) == pytest.approx(sqrt)
    cosine = [(1 + math.cos(math.pi * number / count)) / 2 for number in at]
    assert decay_of(schedule_weights("cosine", even(count))) == pytest.approx(cosine)
    rising = [2 * (number + 1) / (count * (count + 1)) for number in range(count)]
    assert schedule_weights("linear", even(count)) == pytest.approx(rising)


@given(counts, st.floats(0.01, 0.999))
def test_ema_over_even_steps_is_geometric_from_the_newest(count: int, beta: float) -> None:
    weights = schedule_weights(EMA, even(count), beta)
    for older, newer in pairwise(weights):
        assert older == pytest.approx(beta * newer, rel=1e-9)


def test_the_published_table_of_one_minus_sqrt() -> None:
    weights = schedule_weights("one_minus_sqrt", even(7))
    assert [round(each, 3) for each in weights] == [0.378, 0.157, 0.120, 0.101, 0.089, 0.081, 0.074]


@given(steps, betas, st.sampled_from(SCHEDULES))
def test_all_weights_sum_to_one_and_none_is_negative(
    run: list[int], beta: float, schedule: str
) -> None:
    weights = schedule_weights(schedule, run, beta)
    assert len(weights) == len(run)
    assert math.fsum(weights) == pytest.approx(1, abs=1e-12)
    assert min(weights) >= 0


@given(steps, betas, st.sampled_from(SCHEDULES), st.integers(1, 9), st.integers(0, 10**6))
def test_weights_follow_from_the_proportions_of_the_steps_alone(
    run: list[int], beta: float, schedule: str, factor: int, shift: int
) -> None:
    moved = [step * factor + shift for step in run]
    assert schedule_weights(schedule, moved, beta) == schedule_weights(schedule, run, beta)


@given(steps)
def test_ema_of_beta_zero_is_the_newest_step_and_of_a_small_one_nearly(run: list[int]) -> None:
    assert schedule_weights(EMA, run, 0.0) == (0.0,) * (len(run) - 1) + (1.0,)
    if len({after - at for at, after in pairwise(run)}) == 1:
        assert schedule_weights(EMA, run, 1e-9)[-1] == pytest.approx(1, abs=1e-8)


@given(st.integers(0, 10**9), st.sampled_from(SCHEDULES), betas)
def test_a_window_of_one_has_weight_one(step: int, schedule: str, beta: float) -> None:
    assert schedule_weights(schedule, [step], beta) == (1.0,)


def test_uneven_steps_by_hand() -> None:
    # Steps 0, 100, 400: the mean spacing is 200, so the stretches are 100, 300 and 200 of 600.
    assert schedule_weights("uniform", [0, 100, 400]) == (1 / 6, 1 / 2, 1 / 3)
    ends = [0, 1 / 6, 4 / 6, 1]
    sqrt = [math.sqrt(end) - math.sqrt(at) for at, end in pairwise(ends)]
    assert schedule_weights("one_minus_sqrt", [0, 100, 400]) == pytest.approx(sqrt)
    # F(u) = u (3u + 1) / 4: 0, 1/16, 1/2, 1.
    assert schedule_weights("linear", [0, 100, 400]) == (1 / 16, 7 / 16, 1 / 2)
    # What is left after 200 steps is half: 2^-3, 2^-2.5, 2^-1, 2^0 at the stretches' ends.
    marks = [2 ** -((600 - end) / 200) for end in (0, 100, 400, 600)]
    ema = [(end - at) / (1 - 1 / 8) for at, end in pairwise(marks)]
    assert schedule_weights(EMA, [0, 100, 400], 0.5) == pytest.approx(ema)


def test_sums() -> None:
    assert sum_problem([0.5, 0.5]) is None
    assert sum_problem([0.333333, 0.333333, 0.333333]) is None
    assert math.fsum(of_sum_one([0.333333] * 3)) == pytest.approx(1, abs=1e-15)
    assert "sum to 0.9, and" in str(sum_problem([0.5, 0.4]))
    assert sum_problem([1.5, -0.5]) is None
