"""Samplers: points stay in the space, follow from what was tried, and get better by it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_ops.search import Point, SearchSpace, Trial, check_search, propose, space_of

SAMPLERS = ("random", "tpe", "cma-es")
SPACE: dict[str, Any] = {
    "lambda": {"low": 0.1, "high": 2.0},
    "weight": {"low": 0.01, "high": 1.0, "log": True, "per": "expert"},
}
EXPERTS = ("herbs", "idioms")


def quality(point: Point) -> float:
    """Highest, 0, at lambda 1.2, herbs 0.3, idioms 0.8."""
    wanted = {"lambda": 1.2, "weight[herbs]": 0.3, "weight[idioms]": 0.8}
    return -sum((float(point[name]) - value) ** 2 for name, value in wanted.items())


def tried(sampler: str, count: int, seed: int = 7, failing: int | None = None) -> list[Trial]:
    chosen = check_search({"sampler": sampler, "trials": 40, "parameters": SPACE})
    space, trials = space_of(chosen, EXPERTS), list[Trial]()
    for number in range(count):
        point = propose(space, chosen, seed, trials)
        assert point is not None
        values = None if number == failing else (quality(point),)
        trials.append(Trial(number, point, values))
    return trials


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_was_cut_goes_on_as_if_it_had_not_been(sampler: str) -> None:
    chosen = check_search({"sampler": sampler, "trials": 40, "parameters": SPACE})
    space, trials = space_of(chosen, EXPERTS), tried(sampler, 24, failing=3)
    for cut in (0, 1, 4, 11, 17, 23):
        assert propose(space, chosen, 7, trials[:cut]) == trials[cut].point


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_stay_within_their_bounds(sampler: str) -> None:
    for trial in tried(sampler, 16, seed=3):
        assert list(trial.point) == ["lambda", "weight[herbs]", "weight[idioms]"]
        assert 0.1 <= float(trial.point["lambda"]) <= 2.0
        assert all(0.01 <= float(trial.point[f"weight[{name}]"]) <= 1.0 for name in EXPERTS)


def test_another_seed_gives_other_points() -> None:
    for sampler in SAMPLERS:
        assert tried(sampler, 3, seed=1) != tried(sampler, 3, seed=2)


@pytest.mark.parametrize("sampler", ["tpe", "cma-es"])
def test_what_was_tried_leads_on(sampler: str) -> None:
    """The later half is nearer to the best point than the earlier half, and than random points."""
    values = [quality(trial.point) for trial in tried(sampler, 40)]
    chance = [quality(trial.point) for trial in tried("random", 40)]
    later = sum(values[20:]) / 20
    assert later > sum(values[:20]) / 20
    assert later > sum(chance) / 40
    assert max(values) > max(chance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_dimension_is_a_space(sampler: str) -> None:
    chosen = check_search({"sampler": sampler, "parameters": {"t": {"low": 0.0, "high": 1.0}}})
    trials: list[Trial] = []
    for number in range(12):
        point = propose(space_of(chosen), chosen, 0, trials)
        assert point is not None
        trials.append(Trial(number, point, (-abs(float(point["t"]) - 0.25),)))
    assert len({trial.point["t"] for trial in trials}) > 6


def test_a_grid_is_walked_in_order_and_ends() -> None:
    parameters = {
        "density": {"low": 0.3, "high": 0.9, "step": 0.3},
        "normalize": {"values": [True, False]},
    }
    chosen = check_search({"sampler": "grid", "parameters": parameters})
    space, points, trials = space_of(chosen), list[Point](), list[Trial]()
    while (point := propose(space, chosen, 0, trials)) is not None:
        points.append(point)
        trials.append(Trial(len(trials), point, (0.0,)))
    assert space.grid_size == 6
    assert points == [
        {"density": density, "normalize": normalize}
        for density in (0.3, 0.6, 0.9)
        for normalize in (True, False)
    ]


def test_choices_and_steps_are_kept() -> None:
    parameters = {
        "density": {"low": 0.1, "high": 0.5, "step": 0.2},
        "normalize": {"values": [True, False]},
        "select": {"values": ["sum", "count"]},
    }
    for sampler in ("tpe", "random"):
        chosen = check_search({"sampler": sampler, "trials": 12, "parameters": parameters})
        trials: list[Trial] = []
        for number in range(12):
            point = propose(space_of(chosen), chosen, 5, trials)
            assert point is not None
            assert point["density"] in (0.1, 0.3, 0.5)
            assert point["normalize"] in (True, False)
            assert point["select"] in ("sum", "count")
            trials.append(Trial(number, point, (float(point["density"]),)))


def test_several_objectives() -> None:
    chosen = check_search(
        {
            "objective": ["herbs", "idioms"],
            "trials": 20,
            "parameters": {"t": {"low": 0.0, "high": 1.0}},
        }
    )
    trials: list[Trial] = []
    for number in range(20):
        point = propose(space_of(chosen), chosen, 1, trials)
        assert point is not None
        t = float(point["t"])
        trials.append(Trial(number, point, (t, 1 - t)))
    assert len({trial.point["t"] for trial in trials}) > 10


@settings(max_examples=60, deadline=None)
@given(low=st.floats(-5, 5), width=st.floats(1e-3, 10), share=st.floats(0, 1), log=st.booleans())
def test_values_lie_between_their_ends(low: float, width: float, share: float, log: bool) -> None:
    low = abs(low) + 1e-3 if log else low
    space = check_search({"parameters": {"x": {"low": low, "high": low + width, "log": log}}})
    (dimension,) = space_of(space).dimensions
    assert low <= float(dimension.at(share)) <= low + width


def test_a_space_without_dimensions_cannot_be_written() -> None:
    assert SearchSpace(()).grid_size == 1
