"""Sums of bfloat16 as it is stored have the bits of sums of blocks made float32 first."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from merge_ops.kernels import loops as kernels
from merge_ops.measures.combination import WeightedSum, sums_as_bfloat16
from merge_ops.measures.measure import LEAF
from merge_ops.methods import METHODS
from merge_ops.stream.stored_sums import sums_of_stored
from tests.method_settings import usual_parameters


def stored(count: int, seed: int) -> NDArray[np.uint16]:
    """Bits of bfloat16 values, some zero, some the smallest there are."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.01
    values[::5], values[3::101], values[4::97] = 0.0, -0.0, 1e-40
    return values.bfloat16().view(torch.int16).numpy().view(np.uint16)


def widened(bits, base=None):
    values = np.empty(len(bits), dtype=np.float32)
    assert kernels.from_bfloat16(bits, base, values)
    return values


@pytest.mark.parametrize("count", [1, 63, 1024, 1025, LEAF + 77])
@pytest.mark.parametrize("experts", [1, 2, 5])
@pytest.mark.parametrize("with_base", [True, False])
def test_the_same_bits(count: int, experts: int, with_base: bool):
    base = stored(count, 9) if with_base else None
    origin = None if base is None else widened(base)
    parts = [stored(count, seed) for seed in range(experts)]
    blocks = [widened(each, origin) for each in parts]
    weights = [0.3, -0.2, 1.0, 0.7, 0.1][:experts]
    numbers = [(weights, 1, 1), (weights, 0.6, 1), (weights[::-1], 0.6, -1.3)]
    found, finite = sums_of_stored([WeightedSum(parts, *each) for each in numbers], base)
    assert finite
    expected = sums_as_bfloat16([WeightedSum(blocks, *each) for each in numbers], origin)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("bad", [0x7F80, 0xFF80, 0x7FC1])
@pytest.mark.parametrize("where", [None, 0, 1])
def test_what_is_not_finite_is_told(bad: int, where: int | None):
    base, *parts = inputs = [stored(2000, seed) for seed in range(3)]
    inputs[0 if where is None else where + 1][1999] = bad
    assert not sums_of_stored([WeightedSum(parts, [0.5, 0.5])], base)[1]


def test_marked_methods_look_at_no_value_and_measure_nothing():
    marked = [method for method in METHODS.values() if method.sums_inputs]
    assert {method.name for method in marked} == {"linear", "task_arithmetic"}
    for method in marked:
        inputs = [object(), object()]
        merged = method.function(inputs, None, usual_parameters(method, 2))
        assert list(merged.parts) == inputs
        assert method.measure is None
        assert method.arrays
