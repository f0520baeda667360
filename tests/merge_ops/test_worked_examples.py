"""Each method on numbers small enough to check by hand; the arithmetic stands beside them."""

import math

import pytest
import torch

from merge_ops.measure import Block, TensorJob
from merge_ops.methods import METHODS
from merge_ops.methods.dare import DareParameters
from merge_ops.methods.linear import LinearParameters
from merge_ops.methods.slerp import SlerpParameters
from merge_ops.methods.task_arithmetic import TaskArithmeticParameters
from merge_ops.methods.ties import TiesParameters
from merge_ops.randomness import keep_mask, stream_key
from merge_ops.stream import measure_whole


def merged(name, inputs, parameters):
    """One method on whole tensors, measured as the stream would."""
    method = METHODS[name]
    tensors = [torch.tensor(each, dtype=torch.float32) for each in inputs]
    block = Block(0, 0, tensors)
    known = None
    if method.measure is not None:
        names = tuple(f"e{number}" for number in range(len(tensors)))
        measure = method.measure(TensorJob("t", block.count, names, 7), [parameters])
        measure_whole(measure, block)
        known = measure.at(block, 0)
    return method.merge(tensors, known, parameters)


def test_linear():
    # (1·[1,2] + 3·[5,10]) / 4 = [16, 32] / 4
    out = merged("linear", [[1, 2], [5, 10]], LinearParameters((1.0, 3.0), True))
    assert out.tolist() == [4, 8]


def test_linear_without_normalize():
    # 0.5·[1,2] + 0.25·[4,8]
    out = merged("linear", [[1, 2], [4, 8]], LinearParameters((0.5, 0.25), False))
    assert out.tolist() == [1.5, 3]


def test_slerp_quarter_turn():
    # orthogonal, Ω = π/2, t = 1/3: sin(π/3)·[2,0] + sin(π/6)·[0,4] = [√3, 2]
    out = merged("slerp", [[2, 0], [0, 4]], SlerpParameters(1 / 3))
    assert out.tolist() == pytest.approx([math.sqrt(3), 2], rel=1e-6)


def test_slerp_of_parallel_vectors_is_a_straight_line():
    # cos Ω = 1 > 0.9995: 0.75·[1,2] + 0.25·[3,6]
    out = merged("slerp", [[1, 2], [3, 6]], SlerpParameters(0.25))
    assert out.tolist() == pytest.approx([1.5, 3], rel=1e-6)


def test_slerp_of_a_zero_vector_counts_as_orthogonal():
    # sin(π/4)·0 + sin(π/4)·[1,1]
    out = merged("slerp", [[0, 0], [1, 1]], SlerpParameters(0.5))
    assert out.tolist() == pytest.approx([math.sqrt(0.5)] * 2, rel=1e-6)


def test_task_arithmetic():
    # 0.5 · (2·[1,−1] + 1·[3,4]) = [2.5, 1]
    out = merged(
        "task_arithmetic", [[1, -1], [3, 4]], TaskArithmeticParameters((2.0, 1.0), False, 0.5)
    )
    assert out.tolist() == [2.5, 1]


def test_task_arithmetic_normalized():
    # (2·[1,−1] + 2·[3,4]) / 4
    out = merged(
        "task_arithmetic", [[1, -1], [3, 4]], TaskArithmeticParameters((2.0, 2.0), True, 1.0)
    )
    assert out.tolist() == [2, 1.5]


def test_task_arithmetic_unlearns_with_a_negative_weight():
    out = merged("task_arithmetic", [[1, -1]], TaskArithmeticParameters((-1.0,), False, 1.0))
    assert out.tolist() == [-1, 1]


def test_ties():
    # k = max(1, ⌊0.5·4⌋) = 2 of each:  [4, 0, −3, 0]  and  [−1, 2, 0, 0]→ the largest are −3 and 2:
    #   δ1 = [4, 1, −3, 0.5] → [4, 0, −3, 0]
    #   δ2 = [−1, 2, −3, 0.2] → [0, 2, −3, 0]
    # sums [4, 2, −6, 0] elect [+, +, −, +]; means of those that agree: [4, 2, −3, 0]
    out = merged(
        "ties",
        [[4, 1, -3, 0.5], [-1, 2, -3, 0.2]],
        TiesParameters((1.0, 1.0), (0.5, 0.5), True, 1.0),
    )
    assert out.tolist() == [4, 2, -3, 0]


def test_ties_election_against_a_minority():
    # nothing trimmed; sums [1, −1] elect [+, −]: δ1 wins the first, δ2 the second entry
    out = merged("ties", [[3, 1], [-2, -2]], TiesParameters((1.0, 1.0), (1.0, 1.0), True, 2.0))
    assert out.tolist() == [6, -4]


def test_ties_weights_take_part_in_the_election():
    # 1·3 + 2·(−2) = −1 elects minus: 2·(−2) / 2
    out = merged("ties", [[3.0], [-2.0]], TiesParameters((1.0, 2.0), (1.0, 1.0), True, 1.0))
    assert out.tolist() == [-2]


def test_ties_without_normalize_is_a_sum():
    # both agree: 3 + 1
    out = merged("ties", [[3.0], [1.0]], TiesParameters((1.0, 1.0), (1.0, 1.0), False, 1.0))
    assert out.tolist() == [4]


def test_ties_keeps_equal_magnitudes_from_the_lowest_index():
    # k = 2 of |[1, −1, 1, −1]|: the first two
    out = merged("ties", [[1, -1, 1, -1]], TiesParameters((1.0,), (0.5,), True, 1.0))
    assert out.tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize(
    ("rescale", "factor"), [("none", 1.0), ("inverse_density", 4.0), ("l1_norm", None)]
)
def test_dare_linear(rescale, factor):
    values = [float(number + 1) for number in range(64)]
    mask = keep_mask(stream_key(7, "t", "e0"), 0, 64, 0.25, torch.device("cpu"))
    kept = [value * bit for value, bit in zip(values, mask.tolist(), strict=True)]
    if factor is None:
        factor = sum(values) / sum(kept)  # mergekit: Σ|δ| stays what it was
    out = merged("dare_linear", [values], DareParameters((1.0,), (0.25,), False, rescale, 1.0))
    assert out.tolist() == pytest.approx([value * factor for value in kept], rel=1e-6)


def test_dare_ties_elects_after_dropping():
    # density 1 drops nothing: sums [1, −1], so 3 and −2; no division, λ = 0.5
    out = merged(
        "dare_ties",
        [[3, 1], [-2, -2]],
        DareParameters((1.0, 1.0), (1.0, 1.0), False, "l1_norm", 0.5),
    )
    assert out.tolist() == [1.5, -1]
