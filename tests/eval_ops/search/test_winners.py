"""The centre of trials that are about as good as the best one, and when it wins."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_ops.search import SearchSpace, check_search, propose, space_of
from eval_ops.search.studies import Study, Trial
from eval_ops.search.winners import Answers, centre, centre_weights, is_as_good


def space(**parameters: Any) -> SearchSpace:
    return space_of(check_search({"parameters": parameters}), ["a", "b"])


def answers(rows: Sequence[Sequence[float]], strata: list[int] | None = None) -> Answers:
    """Rows of right (1) and wrong (0) answers, each benchmark counting alike."""
    numbers = np.array(strata or [0] * len(rows[0]))
    counts = np.bincount(numbers)
    return Answers(np.array(rows, float) / counts[numbers] / len(counts), numbers)


def test_weights_by_hand() -> None:
    """Of 4 items the first trial answers 3, the second 2 of these: z = 1 after all roots."""
    found = answers([[1, 1, 1, 0], [1, 1, 0, 0]])
    gap, error = found.below(0)
    assert gap.tolist() == [0.0, 0.25]
    assert error.tolist() == [0.0, pytest.approx(0.25)]
    assert centre_weights(found).tolist() == [1.0, pytest.approx(math.exp(-0.5))]


def test_benchmarks_are_drawn_each_for_itself() -> None:
    """A trial that loses all of one benchmark loses it whatever items are drawn."""
    found = answers([[1, 1, 1, 1], [1, 1, 0, 0]], [0, 0, 1, 1])
    gap, error = found.below(0)
    assert (gap[1], error[1]) == (0.5, 0.0)
    assert centre_weights(found)[1] == pytest.approx(0.0, abs=1e-12)


def test_the_centre_of_numbers_ratios_steps_and_choices() -> None:
    dimensions = space(
        t={"low": 0.0, "high": 1.0},
        d={"low": 0.01, "high": 1.0, "log": True},
        s={"low": 0.0, "high": 1.0, "step": 0.5},
        n={"values": ["x", "y"]},
    )
    points = [
        {"t": 0.2, "d": 0.01, "s": 0.5, "n": "y"},
        {"t": 0.4, "d": 1.0, "s": 1.0, "n": "x"},
        {"t": 0.6, "d": 0.1, "s": 1.0, "n": "y"},
    ]
    same = answers([[1, 0, 1]] * 3)
    assert centre(dimensions, points, same) == {"t": 0.4, "d": 0.1, "s": 1.0, "n": "y"}


def test_it_wins_where_it_is_not_below_by_a_standard_error() -> None:
    best = [1] * 6 + [0] * 4
    one_less = [1] * 5 + [0] * 5
    far_less = [1] + [0] * 9
    assert is_as_good(answers([best, one_less]), 1)
    assert is_as_good(answers([best, best]), 1)
    assert not is_as_good(answers([best, far_less]), 1)
    assert is_as_good(answers([far_less, best]), 1)


def test_a_valley_between_two_hills_does_not_win() -> None:
    dimensions = space(t={"low": 0.0, "high": 1.0})
    found = answers([[1] * 9 + [0], [1] * 9 + [0]])
    middle = centre(dimensions, [{"t": 0.1}, {"t": 0.9}], found)
    assert middle == {"t": 0.5}
    assert not is_as_good(answers([[1] * 9 + [0], [1] * 9 + [0], [0] * 10]), 2)


def test_the_centre_beats_the_best_on_new_items() -> None:
    """Of 25 searches whose items each favour a place near 0.4 of their own.

    The best of 40 trials learns the validation items; the centre is better on items like these.
    """
    dimensions = space(t={"low": 0.0, "high": 1.0, "per": "layers", "points": 3})
    gained: list[float] = []
    for seed in range(25):
        draw = np.random.default_rng(seed)

        def right(points: Any, items: Any) -> Any:
            places, slack = items
            far = ((np.array(points)[:, None] - places) ** 2).mean(axis=2)
            return (slack - 2 * far > 0).astype(float)

        def drawn(count: int, draw: Any = draw) -> Any:
            return 0.4 + 0.3 * draw.standard_normal((count, 3)), draw.normal(0.35, 0.25, count)

        asked, new = drawn(132), drawn(3000)
        points = draw.random((40, 3))
        seen = answers(right(points, asked).tolist())
        tried = [
            {d.name: float(x) for d, x in zip(dimensions.dimensions, p, strict=True)}
            for p in points
        ]
        middle = list(map(float, centre(dimensions, tried, seen).values()))
        best = points[int(seen.objectives().argmax())]
        values = right([middle, best], new).mean(axis=1)
        gained.append(float(values[0] - values[1]))
    assert float(np.mean(gained)) > 2 * float(np.std(gained)) / 5  # 5 is the root of 25


@given(st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=1, max_size=8))
def test_laws_of_weights(rows: list[list[int]]) -> None:
    """Weights lie in [0, 1], equal objectives count 1, and the order of the items says nothing."""
    found = answers([list(map(float, row)) for row in rows])
    weights, totals = centre_weights(found), found.objectives()
    assert ((weights >= 0) & (weights <= 1)).all()
    assert (weights[totals >= totals.max() - 1e-12] == 1).all()
    turned = answers([list(map(float, reversed(row))) for row in rows])
    if (totals >= totals.max() - 1e-12).sum() == 1:
        assert weights == pytest.approx(centre_weights(turned))


@pytest.mark.parametrize("sampler", ["random", "tpe", "cma-es"])
def test_a_start_comes_first_and_the_samplers_own_points_after_it(sampler: str) -> None:
    chosen = check_search(
        {"sampler": sampler, "parameters": {"t": {"low": 0.0, "high": 1.0}}, "trials": 40}
    )
    room, trials, plain = space_of(chosen), list[Trial](), list[Trial]()
    for number in range(6):
        point = propose(room, chosen, 3, trials, {"t": 0.125})
        assert point is not None
        trials.append(Trial(number, point, (0.5,)))
        own = propose(room, chosen, 3, plain)
        assert own is not None
        plain.append(Trial(number, own, (0.5,)))
    assert trials[0].point == {"t": 0.125}
    if sampler != "tpe":
        assert [each.point for each in trials[1:]] == [each.point for each in plain[:-1]]


def test_where_a_search_starts() -> None:
    dimensions = space(
        t={"low": 0.0, "high": 1.0},
        d={"low": 0.01, "high": 1.0, "log": True},
        s={"low": 0.1, "high": 0.7, "step": 0.2},
        n={"values": [True, False]},
        w={"low": 0.0, "high": 1.5, "per": "expert"},
    )
    assert dimensions.start({}) == {
        "t": 0.5, "d": 0.1, "s": 0.5, "n": True, "w[a]": 0.75, "w[b]": 0.75,
    }  # fmt: skip
    told = {"t": 2.0, "d": 0.3, "s": 0.35, "n": False, "w[a]": 1.0, "w[b]": [1, 2]}
    assert dimensions.start(told) == {
        "t": 0.5, "d": 0.3, "s": 0.3, "n": False, "w[a]": 1.0, "w[b]": 0.75,
    }  # fmt: skip


def test_a_study_knows_its_winner() -> None:
    trials = (Trial(0, {"t": 0.1}, (0.5,)), Trial(1, {"t": 0.3}, (0.6,)))
    middle = Trial(2, {"t": 0.2}, (0.55,), "ab" * 32, None, 9)
    taken = Study("tpe", 0, ("mean",), trials, "trials", {}, middle, True)
    left = Study("tpe", 0, ("mean",), trials, "trials", {}, middle)
    assert (taken.winner, left.winner) == (middle, trials[1])
    assert Study.from_json(taken.to_json()) == taken
    assert Study.from_json(left.to_json()) == left
