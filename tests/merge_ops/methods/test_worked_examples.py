"""Each method on numbers small enough to check by hand; the arithmetic stands beside them."""

import math

import pytest
import torch

from merge_ops.errors import NoDirectionError
from merge_ops.measures.randomness import stream_key
from merge_ops.methods.breadcrumbs import BreadcrumbsParameters
from merge_ops.methods.dare import DareParameters
from merge_ops.methods.karcher import KarcherParameters
from merge_ops.methods.linear import LinearParameters
from merge_ops.methods.magmax import MagmaxParameters
from merge_ops.methods.model_stock import ModelStockParameters
from merge_ops.methods.nearswap import NearswapParameters
from merge_ops.methods.nuslerp import NuslerpParameters
from merge_ops.methods.passthrough import PassthroughParameters
from merge_ops.methods.ram import RamParameters, RamplusParameters
from merge_ops.methods.slerp import SlerpParameters
from merge_ops.methods.spheres import MultislerpParameters
from merge_ops.methods.task_arithmetic import TaskArithmeticParameters
from merge_ops.methods.ties import TiesParameters
from tests.merges import philox
from tests.merges.method_settings import merged_whole

pytestmark = pytest.mark.usefixtures("arithmetic")


def merged(name, inputs, parameters):
    """One method on whole flat tensors, measured as the stream would."""
    return merged_whole(
        name, [torch.tensor(each, dtype=torch.float32) for each in inputs], parameters
    )


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
        TiesParameters((1.0, 1.0), (0.5, 0.5), True, 1.0, "none"),
    )
    assert out.tolist() == [4, 2, -3, 0]


def test_ties_election_against_a_minority():
    # nothing trimmed; sums [1, −1] elect [+, −]: δ1 wins the first, δ2 the second entry
    out = merged(
        "ties", [[3, 1], [-2, -2]], TiesParameters((1.0, 1.0), (1.0, 1.0), True, 2.0, "none")
    )
    assert out.tolist() == [6, -4]


def test_ties_weights_take_part_in_the_election():
    # 1·3 + 2·(−2) = −1 elects minus: 2·(−2) / 2
    out = merged("ties", [[3.0], [-2.0]], TiesParameters((1.0, 2.0), (1.0, 1.0), True, 1.0, "none"))
    assert out.tolist() == [-2]


def test_ties_without_normalize_is_a_sum():
    # both agree: 3 + 1
    out = merged("ties", [[3.0], [1.0]], TiesParameters((1.0, 1.0), (1.0, 1.0), False, 1.0, "none"))
    assert out.tolist() == [4]


def test_ties_keeps_equal_magnitudes_from_the_lowest_index():
    # k = 2 of |[1, −1, 1, −1]|: the first two
    out = merged("ties", [[1, -1, 1, -1]], TiesParameters((1.0,), (0.5,), True, 1.0, "none"))
    assert out.tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize(
    ("rescale", "factor"), [("none", 1.0), ("inverse_density", 4.0), ("l1_norm", None)]
)
def test_dare_linear(rescale, factor):
    values = [float(number + 1) for number in range(64)]
    mask = philox.mask(stream_key(7, "t", "e0"), 0, 64, 0.25)
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


def test_passthrough():
    out = merged("passthrough", [[1, -2]], PassthroughParameters((0.5,)))
    assert out.tolist() == [0.5, -1]


def test_nearswap():
    # t = 0.5: |0.25| is taken whole, 2 and -1 are cut to ±0.5, 0 stays
    out = merged("nearswap", [[0.25, 2, -1, 0]], NearswapParameters(0.5))
    assert out.tolist() == [0.25, 0.5, -0.5, 0]


def test_magmax():
    # |−3| > |1|, |2| < |4|, |1| = |−1|: the later one; halved
    out = merged("magmax", [[-3, 2, 1], [1, 4, -1]], MagmaxParameters(0.5))
    assert out.tolist() == [-1.5, 2, -0.5]


def test_model_stock():
    # c = ⟨[3,4],[4,3]⟩ / 25 = 0.96; t = 2·0.96 / 1.96; each share is t/2 = 0.96/1.96
    out = merged("model_stock", [[3, 4], [4, 3]], ModelStockParameters(False))
    assert out.tolist() == pytest.approx([7 * 0.96 / 1.96] * 2, rel=1e-6)


def test_model_stock_of_opposite_experts_stays_at_the_base():
    # c = −1, 1 + c = 0
    out = merged("model_stock", [[1, 2], [-1, -2]], ModelStockParameters(False))
    assert out.tolist() == [0, 0]


def test_karcher_of_two_is_half_way_on_the_arc():
    # directions [1,0] and [0,1] → [1,1]/√2, lengths 2 and 4 → 3
    out = merged("karcher", [[2, 0], [0, 4]], KarcherParameters(10, 1e-5))
    assert out.tolist() == pytest.approx([3 / math.sqrt(2)] * 2, rel=1e-6)


def test_karcher_of_three_is_nearest_to_all():
    # on a circle the mean of the angles 0°, 10° and 50° is 20°, unlike that of the vectors
    vectors = [[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (0, 10, 50)]
    out = merged("karcher", vectors, KarcherParameters(10, 1e-9))
    assert out.tolist() == pytest.approx(
        [math.cos(math.radians(20)), math.sin(math.radians(20))], rel=1e-6
    )


def test_karcher_counts_a_zero_tensor_in_the_length_only():
    # one direction, [0.6, 0.8]; lengths 5 and 0 → 2.5
    out = merged("karcher", [[3, 4], [0, 0]], KarcherParameters(10, 1e-5))
    assert out.tolist() == pytest.approx([1.5, 2], rel=1e-6)


def test_breadcrumbs():
    # of ten, γ = 0.2 drops 10 and −9, density 0.3 keeps the next three: 8, −7, 6
    entries = [1, -2, 3, -4, 5, 6, -7, 8, -9, 10]
    parameters = BreadcrumbsParameters((1.0,), (0.3,), (0.2,), False, 1.0, "none")
    out = merged("breadcrumbs", [entries], parameters)
    assert out.tolist() == [0, 0, 0, 0, 0, 6, -7, 8, 0, 0]


def test_breadcrumbs_drops_fewer_outliers_to_reach_the_density():
    # 9 + 2 > 10: only the largest one goes
    parameters = BreadcrumbsParameters((1.0,), (0.9,), (0.2,), False, 1.0, "none")
    out = merged("breadcrumbs", [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], parameters)
    assert out.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_breadcrumbs_without_gamma_keeps_the_density():
    # ⌊0 · 4⌋ = 0 outliers: the two largest stay (mergekit up to 0.1.4 kept nothing)
    parameters = BreadcrumbsParameters((1.0,), (0.5,), (0.0,), False, 1.0, "none")
    out = merged("breadcrumbs", [[1, 4, 2, 3]], parameters)
    assert out.tolist() == [0, 4, 0, 3]


def test_breadcrumbs_ties():
    # γ = 0.25 drops 9 and −8; density 0.5 keeps [·,2,4,·] and [·,3,−6,·]: 2 and 3 agree, of 4 and
    # −6 the sum elects −6; normalized: the mean of those that agree
    parameters = BreadcrumbsParameters((1.0, 1.0), (0.5, 0.5), (0.25, 0.25), True, 1.0, "none")
    out = merged("breadcrumbs_ties", [[9, 2, 4, 1], [1, 3, -6, -8]], parameters)
    assert out.tolist() == [0, 2.5, -6, 0]


def test_nuslerp():
    # t = 3/(1+3), Ω = π/2: sin(π/8)·[2,0] + sin(3π/8)·[0,1]
    out = merged("nuslerp", [[2, 0], [0, 1]], NuslerpParameters((1.0, 3.0), False, True))
    assert out.tolist() == pytest.approx([2 * math.sin(math.pi / 8), math.sin(3 * math.pi / 8)])


def test_nuslerp_of_opposites_is_a_straight_line():
    # cos Ω = −1: 0.75·[1,2] + 0.25·[−2,−4]
    out = merged("nuslerp", [[1, 2], [-2, -4]], NuslerpParameters((3.0, 1.0), False, True))
    assert out.tolist() == pytest.approx([0.25, 0.5])


def test_multislerp():
    # u = [1,0], [0,1]; w = 1/4, 3/4: ([1,3]/4) / (√10/4) · (1/4·2 + 3/4·6) = 5·[1,3]/√10
    out = merged("multislerp", [[2, 0], [0, 6]], MultislerpParameters((1.0, 3.0), True, 1e-8))
    assert out.tolist() == pytest.approx([5 / math.sqrt(10), 15 / math.sqrt(10)])


def test_multislerp_without_normalization():
    # w = 1, 3 as they are: lengths 1·2 + 3·6 = 20
    out = merged("multislerp", [[2, 0], [0, 6]], MultislerpParameters((1.0, 3.0), False, 1e-8))
    assert out.tolist() == pytest.approx([20 / math.sqrt(10), 60 / math.sqrt(10)])


def test_multislerp_of_two_that_cancel_is_linear():
    out = merged("multislerp", [[1, 2], [-3, -6]], MultislerpParameters((1.0, 1.0), True, 1e-8))
    assert out.tolist() == pytest.approx([-1, -2])


def test_multislerp_of_three_that_cancel_says_so():
    inputs = [[1, 0], [-2, 0], [0, 0]]
    with pytest.raises(NoDirectionError, match=r"tensor 't': .* cancel out; change the weights"):
        merged("multislerp", inputs, MultislerpParameters((1.0, 1.0, 1.0), True, 1e-6))


def test_ram():
    # changed by both: the mean; by one: whole; by none (|δ| ≤ 0.1): nothing
    out = merged("ram", [[2, 3, 0.1, 0], [4, 0.1, 5, 0.1]], RamParameters(0.1))
    assert out.tolist() == [3, 3, 5, 0]


def test_ramplus_tl():
    # the first expert has 1 shared and 2 own changes, ρ = 0.5 → 1 + 0.1·0.5; the second 1 and 1,
    # ρ = 1, at most 0.6 → 1 + 0.1·0.6
    out = merged("ramplus_tl", [[2, 3, 0, 1], [4, 0, 5, 0]], RamplusParameters(0.1, 0.6, 1e-5))
    assert out.tolist() == pytest.approx([3, 3 * 1.05, 5 * 1.06, 1.05])


def test_ramplus_tl_of_experts_that_share_everything_is_ram():
    # no own change: shared / ε is beyond alpha, and grows nothing
    out = merged("ramplus_tl", [[2, 4], [4, 6]], RamplusParameters(0.1, 0.2, 1e-5))
    assert out.tolist() == [3, 5]


def test_ties_rescaled():
    # of Σ|δ| = 10 the two largest keep 7: × 10/7
    parameters = TiesParameters((1.0,), (0.5,), True, 1.0, "l1_norm")
    out = merged("ties", [[1, -4, 3, -2]], parameters)
    assert out.tolist() == pytest.approx([0, -40 / 7, 30 / 7, 0])


def test_breadcrumbs_rescaled():
    # of Σ|δ| = 10 the outlier 4 is dropped, 3 and 2 are kept: × 10/5
    parameters = BreadcrumbsParameters((1.0,), (0.5,), (0.25,), False, 1.0, "l1_norm")
    out = merged("breadcrumbs", [[1, -4, 3, -2]], parameters)
    assert out.tolist() == pytest.approx([0, 0, 6, -4])
