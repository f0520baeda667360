"""What methods return becomes bytes: sums in one pass, of what is stored where that will do."""

import weakref

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from merge_ops.kernels.arithmetic import NOTHING
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import LEAF
from merge_ops.measures.trimmed_blocks import TrimmedBlock
from merge_ops.methods import METHODS
from merge_ops.stream.rounding import encoded, grouped, sums_of_stored
from tests.merges.arithmetics import LOOPS
from tests.merges.method_settings import usual_parameters


def stored(count: int, seed: int) -> NDArray[np.uint16]:
    """Bits of bfloat16 values, some zero, some the smallest there are."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(seed)) * 0.01
    values[::5], values[3::101], values[4::97] = 0.0, -0.0, 1e-40
    return values.bfloat16().view(torch.int16).numpy().view(np.uint16)


def widened(arithmetic, bits, base=None):
    values = arithmetic.empty(bits.shape)
    assert arithmetic.widen(bits.view(np.uint8), "BF16", base, values)
    return values


def drawn(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 63, 1024, 1025, LEAF + 77])
@pytest.mark.parametrize("experts", [1, 2, 5])
@pytest.mark.parametrize("with_base", [True, False])
def test_sums_of_stored_have_the_bits_of_sums_of_blocks(count, experts, with_base, arithmetic):
    base = stored(count, 9) if with_base else None
    origin = None if base is None else widened(arithmetic, base)
    parts = [stored(count, seed) for seed in range(experts)]
    blocks = [widened(arithmetic, each, origin) for each in parts]
    weights = [0.3, -0.2, 1.0, 0.7, 0.1][:experts]
    numbers = [(weights, 1, 1), (weights, 0.6, 1), (weights[::-1], 0.6, -1.3)]
    results = [WeightedSum(parts, *each) for each in numbers]
    found, finite = sums_of_stored(results, parts, base, arithmetic)
    assert finite
    sums = [WeightedSum(blocks, *each) for each in numbers]
    expected = encoded(sums, blocks, origin, "BF16", arithmetic)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("bad", [0x7F80, 0xFF80, 0x7FC1])
@pytest.mark.parametrize("where", [None, 0, 1])
def test_what_is_not_finite_is_told(bad: int, where: int | None, arithmetic):
    base, *parts = inputs = [stored(2000, seed) for seed in range(3)]
    inputs[0 if where is None else where + 1][1999] = bad
    results = [WeightedSum(parts, [0.5, 0.5])]
    assert not sums_of_stored(results, parts, base, arithmetic)[1]


def test_marked_methods_look_at_no_value_and_measure_nothing():
    marked = [method for method in METHODS.values() if method.sums_inputs]
    assert {method.name for method in marked} == {"linear", "task_arithmetic"}
    for method in marked:
        inputs = [object(), object()]
        merged = method.function(inputs, None, usual_parameters(method, 2), LOOPS)
        assert list(merged.parts) == inputs
        assert method.measure is None
        assert method.arrays


def test_sums_of_the_inputs_go_together():
    inputs = [drawn(8, seed) for seed in range(2)]
    whole = [WeightedSum(inputs, (1.0, scale)) for scale in (1.0, 2.0, 3.0)]
    cut = WeightedSum((TrimmedBlock(inputs[0], NOTHING), inputs[1]), (1.0, 1.0))
    others = [
        WeightedSum(inputs[:1], (1.0,)),
        cut,
        WeightedSum(inputs[::-1], (1.0, 1.0)),
        drawn(8),
    ]
    results = [*whole[:2], *others, whole[2]]
    assert [[id(each) for each in group] for group in grouped(results, inputs)] == [
        [id(each) for each in group]
        for group in ([*whole[:2]], *([each] for each in others), whole[2:])
    ]


def test_of_other_results_two_are_held_at_a_time(arithmetic):
    inputs, alive = [drawn(8)], []

    def results():
        for seed in range(5):
            masked = drawn(8, seed)
            alive.append(weakref.ref(masked))
            assert sum(each() is not None for each in alive) <= 2
            yield WeightedSum([masked], [1.0])

    assert len(encoded(results(), inputs, None, "BF16", arithmetic)) == 5


@pytest.mark.parametrize("code", ["BF16", "F16", "F32", "F64"])
def test_a_sum_is_rounded_once_in_every_dtype(code, arithmetic):
    dtype = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}.get(code)
    inputs, base = [drawn(1001, seed) for seed in range(2)], drawn(1001, 5)
    result = WeightedSum(inputs, (0.5, 0.25))
    (found,) = encoded([result], inputs, base, code, arithmetic)
    expected = inputs[0] * 0.5 + inputs[1] * 0.25 + base
    assert np.array_equal(found, expected.to(dtype or torch.float64).view(torch.uint8).numpy())
