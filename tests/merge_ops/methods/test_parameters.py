"""What a setting gives one tensor: scalars, gradients over the layers, filters, and what is wrong.

The laws compare with numpy's own piecewise linear interpolation.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merge_ops.methods.parameters import (
    Parameter,
    Value,
    evaluate,
    is_gradient,
    setting_faults,
)

WEIGHT = Parameter("weight", float, "the share of a model")
DENSITY = Parameter("density", float, "the share of entries kept", above=0, at_most=1)
COUNT = Parameter("count", int, "how many", at_least=1, at_most=9)
SWITCH = Parameter("switch", bool, "whether")
SIGN = Parameter("sign", str, "how", choices=("sum", "count"), aliases={False: "count"})
SHARES = Parameter("shares", float, "several shares", is_list=True)
Q_PROJ = "model.layers.3.self_attn.q_proj.weight"


def at(setting: object, t: float, parameter: Parameter = WEIGHT, tensor: str = Q_PROJ):
    return evaluate(parameter, setting, tensor, t)


@pytest.mark.parametrize(
    ("t", "value"),
    [
        # Three anchors 0, 1, 3 stand at depths 0, 1/2 and 1.
        (0.0, 0.0),
        (0.25, 0.5),
        (0.5, 1.0),
        (0.75, 2.0),
        (1.0, 3.0),
    ],
)
def test_a_gradient_is_piecewise_linear_in_depth(t: float, value: float) -> None:
    assert at([0, 1, 3], t) == value


def test_scalars_and_lists_of_one_are_the_same_at_every_depth() -> None:
    for t in (0.0, 0.3, 1.0):
        assert at(0.25, t) == at([0.25], t) == at("0.25", t) == 0.25


def test_what_is_no_number_takes_the_entry_before() -> None:
    # int(t · m) for m = 2 steps: the last entry is reached at t = 1 only.
    assert [at([False, True, False], t, SWITCH) for t in (0.0, 0.49, 0.5, 0.99, 1.0)] == [
        False, False, True, True, False,
    ]  # fmt: skip
    assert [at([1, 5, 9], t, COUNT) for t in (0.0, 0.49, 0.5, 1.0)] == [1, 1, 5, 9]
    assert [at(["sum", False], t, SIGN) for t in (0.0, 0.99, 1.0)] == ["sum", "sum", "count"]


def test_a_list_parameter_takes_its_list_as_it_is() -> None:
    for t in (0.0, 0.7, 1.0):
        assert at([0.5, 1, 2], t, SHARES) == (0.5, 1.0, 2.0)
        assert at(0.5, t, SHARES) == (0.5,)


def test_the_first_filter_that_is_part_of_the_name_wins() -> None:
    setting = [
        {"filter": "q_proj", "value": [0, 1]},
        {"filter": "self_attn", "value": 0.5},
        {"filter": "mlp", "value": 2},
    ]
    assert at(setting, 0.25) == 0.25
    assert at(setting, 0.25, tensor="model.layers.3.self_attn.k_proj.weight") == 0.5
    assert at(setting, 0.25, tensor="model.layers.3.mlp.up_proj.weight") == 2
    assert at(setting, 0.25, tensor="lm_head.weight") is None
    assert at([*setting, {"value": 7}], 0.25, tensor="lm_head.weight") == 7
    assert at([{"filter": "*", "value": 8}, *setting], 0.25) == 8
    assert at({"filter": "q_proj", "value": 3}, 0.25) == 3
    assert at({"filter": "mlp", "value": 3}, 0.25) is None


def test_an_impossible_value_is_refused_wherever_it_stands() -> None:
    for setting in (2, [0.5, 2], {"value": 2}, [{"filter": "q", "value": [0.5, 2]}]):
        with pytest.raises(ValueError, match=r"is 2; it must be above 0 and at most 1 \(the share"):
            at(setting, 0.5, DENSITY)


finite = st.floats(-1e6, 1e6)
gradients = st.lists(finite, min_size=1, max_size=9)
depths = st.floats(0, 1)


def number(value: Value | None) -> float:
    assert isinstance(value, float)
    return value


@given(gradients, depths)
def test_gradients_are_those_of_numpy(anchors: list[float], t: float) -> None:
    places = np.linspace(0, 1, len(anchors)) if len(anchors) > 1 else [0.5]
    expected = float(np.interp(t, places, anchors))
    scale = max(map(abs, anchors))
    assert number(at(anchors, t)) == pytest.approx(expected, rel=1e-12, abs=1e-9 * scale)


@given(gradients)
def test_a_gradient_passes_through_its_anchors(anchors: list[float]) -> None:
    steps = max(1, len(anchors) - 1)
    for place, anchor in enumerate(anchors):
        value = number(at(anchors, place / steps))
        assert value == pytest.approx(anchor, rel=1e-9, abs=1e-9 * max(map(abs, anchors)))


@given(gradients, depths)
def test_a_gradient_backwards_mirrors_the_depth(anchors: list[float], t: float) -> None:
    scale = max(map(abs, anchors))
    there, back = number(at(anchors, t)), number(at(anchors[::-1], 1 - t))
    assert there == pytest.approx(back, rel=1e-9, abs=1e-8 * scale)


@given(gradients, depths, st.floats(-8, 8), finite)
def test_a_gradient_moves_with_its_anchors(
    anchors: list[float], t: float, factor: float, offset: float
) -> None:
    moved = [factor * anchor + offset for anchor in anchors]
    expected = factor * number(at(anchors, t)) + offset
    bound = 1e-8 * (8 * max(map(abs, anchors)) + abs(offset))
    assert number(at(moved, t)) == pytest.approx(expected, abs=bound)


@given(gradients, depths)
def test_a_gradient_stays_between_its_neighbours(anchors: list[float], t: float) -> None:
    value = number(at(anchors, t))
    low, high = (round_(t * (len(anchors) - 1)) for round_ in (math.floor, math.ceil))
    bounds = sorted((anchors[low], anchors[high]))
    slack = 1e-12 * max(map(abs, bounds))
    assert bounds[0] - slack <= value <= bounds[1] + slack


def faults(setting: object) -> list[str]:
    return [
        f"{fault.where} {fault.problem}" for fault in setting_faults("density", DENSITY, setting)
    ]


def test_every_fault_of_a_setting_has_its_place() -> None:
    assert faults(0.5) == faults([0.5, 1]) == faults({"filter": "q", "value": [0.5, 1]}) == []
    allowed = "it must be above 0 and at most 1 (the share of entries kept)"
    assert faults([0.5, 0, "x"]) == [
        f"density[1] is 0; {allowed}",
        f"density[2] is 'x'; {allowed}",
    ]
    assert faults([]) == ["density is an empty list; give a value"]
    assert faults([{"filter": "q", "value": [1, 7]}, 0.5, {"fliter": "q"}]) == [
        f"density[0].value[1] is 7; {allowed}",
        "density[1] is 0.5; where filters are used, each entry is {filter, value}",
        "density[2].fliter is no key of a condition (filter, value). Did you mean 'filter'?",
        "density[2] has no 'value'",
    ]
    assert faults({"filter": 3, "value": 1}) == [
        "density.filter must be a part of a tensor name, '*' or left out"
    ]
    assert faults({"value": {"value": 1}}) == [
        "density.value must be a value or a gradient, not another condition"
    ]


@pytest.mark.parametrize(
    ("setting", "yes"),
    [
        (0.5, False),
        ([0.5], False),
        ([0.5, 1], True),
        ({"value": 0.5}, False),
        ({"filter": "q", "value": [0.5, 1]}, True),
        ([{"filter": "q", "value": 1}, {"value": [0.5, 1]}], True),
        ([{"filter": "q", "value": 1}, {"value": [1]}], False),
    ],
)
def test_what_runs_over_the_layers(setting: object, yes: bool) -> None:
    assert is_gradient(setting) is yes


@pytest.mark.parametrize(
    ("parameter", "good", "bad", "allowed"),
    [
        (DENSITY, [1e-9, 1, "1e-3"], [0, -1, 1.0000001, True, None, math.nan, math.inf], "above 0"),
        (WEIGHT, [-3, 0, "2"], [math.inf, math.nan, "x", [], False, 10**400], "a finite number"),
        (
            COUNT,
            [1, 9, "3", 4.0],
            [0, 10, 1.5, True],
            "a whole number and at least 1 and at most 9",
        ),
        (SWITCH, [True, False, 0, 1.0, "yes"], [2, 0.5, "perhaps", None], "true or false"),
        (SIGN, ["sum", "count", False, 0.0], ["summ", True, 1.0, None], "one of sum, count"),
    ],
)
def test_what_a_parameter_takes(
    parameter: Parameter, good: list[object], bad: list[object], allowed: str
) -> None:
    for value in good:
        assert isinstance(parameter.check(value), parameter.kind)
    for value in bad:
        with pytest.raises(ValueError, match=f"it must be {allowed}.* \\({parameter.meaning}\\)$"):
            parameter.check(value)
