"""Elementary functions are right to two units in the last place, whatever the numbers."""

import math

import numpy as np
import pytest
import torch

from merge_ops.kernels import elementary
from tests.merges.arithmetics import LOOPS, TORCH, same_bits

RANDOM = np.random.default_rng(1)


def spread(low, high, count=20_000):
    return RANDOM.uniform(low, high, count)


def by_torch(function):
    return lambda x: function(torch.as_tensor(x)).numpy()


NEAR = RANDOM.normal(size=20_000) * 1e-5
CASES = {
    "exp": (by_torch(elementary.exponential), np.exp, [spread(-690, 690), NEAR, [0.0, -1.0]]),
    "log": (by_torch(elementary.logarithm), np.log, [np.exp(spread(-600, 600)), 1 + NEAR, [1.0]]),
    "tanh": (
        by_torch(elementary.hyperbolic_tangent), np.tanh,
        [spread(-30, 30), spread(-1, 1), NEAR, [0.0, 0.625, -0.625, 1e300]],
    ),
    "sin": (
        lambda x: elementary.sines_and_cosines(x)[0], np.sin,
        [spread(0, math.pi), spread(-100, 100), NEAR, [0.0, math.pi / 2]],
    ),
    "cos": (
        lambda x: elementary.sines_and_cosines(x)[1], np.cos,
        [spread(0, math.pi), spread(-100, 100), NEAR, [0.0]],
    ),
    "acos": (elementary.arc_cosines, np.arccos, [spread(-1, 1), 1 - abs(NEAR), [-1.0, 0, 1, 0.5]]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_right_to_two_units_in_the_last_place(name):
    ours, reference, numbers = CASES[name]
    x = np.concatenate(numbers)
    exact = reference(x.astype(np.longdouble))
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(ours(x) - exact) / np.spacing(np.abs(exact.astype(np.float64)))
    assert float(np.nanmax(off)) < 2


def test_exp_of_what_is_far_below_zero_is_zero():
    assert elementary.exponential(torch.tensor([-701.0, -1e9]).double()).tolist() == [0, 0]


def test_one_number_is_as_many():
    x = spread(-1, 1, 50)
    sines, cosines = elementary.sines_and_cosines(x)
    assert [elementary.sine(each) for each in x] == sines.tolist()
    assert [elementary.cosine(each) for each in x] == cosines.tolist()
    assert [elementary.arc_cosine(each) for each in x] == elementary.arc_cosines(x).tolist()


@pytest.mark.parametrize("name", ["exponential", "logarithm", "hyperbolic_tangent"])
def test_both_arithmetics_have_the_same_bits(name):
    x = np.concatenate([spread(-30, 30), NEAR, [0.625, -0.0, 700.0, -700.0, -1e4, 1.0]])
    x = torch.as_tensor(np.abs(x) + 1e-30 if name == "logarithm" else x)
    results = [getattr(arithmetic, name)(x.clone()) for arithmetic in (LOOPS, TORCH)]
    assert same_bits(*results)
    assert same_bits(results[0], getattr(elementary, name)(x))
