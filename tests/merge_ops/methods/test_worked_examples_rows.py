"""Methods that look at rows, on numbers small enough to check by hand."""

import math

import pytest
import torch

from merge_ops.measures.randomness import stream_key
from merge_ops.methods.arcee_fusion import ArceeFusionParameters, row_divergence
from merge_ops.methods.della import DellaLinearParameters, DellaParameters, keep_chances
from merge_ops.methods.model_stock import ModelStockParameters
from merge_ops.methods.nuslerp import NuslerpParameters
from tests.merges import philox
from tests.merges.arithmetics import current
from tests.merges.method_settings import merged_whole

pytestmark = pytest.mark.usefixtures("arithmetic")


def merged(name, inputs, parameters):
    """One method on whole tensors, measured as the stream would: seen as rows."""
    tensors = [torch.tensor(each, dtype=torch.float32) for each in inputs]
    shape = tuple(tensors[0].shape)
    rows = [each.view(-1, shape[-1] if shape else 1) for each in tensors]
    return merged_whole(name, rows, parameters, shape=shape).view(shape)


ROWS = [[1.0, -4.0, 2.0], [-9.0, 7.0, 8.0]]
RANKS = [[0, 2, 1], [2, 0, 1]]  # of |δ| within each row


def kept_by_hand(chance_of_rank, expert="e0"):
    """Element i stays where its word of the stream is below its chance × 2¹⁶: none equals it."""
    words = philox.words(stream_key(7, "t", expert), philox.UPPER, 0, 6).reshape(2, 3).tolist()
    return [
        [word < int(chance_of_rank[rank] * 2**16) for word, rank in zip(drawn, ranks, strict=True)]
        for drawn, ranks in zip(words, RANKS, strict=True)
    ]


def test_chances_rise_with_the_rank():
    # d = 0.6, ε = 0.3: from 0.3 by steps of 2·0.3/3 to 0.9
    assert keep_chances(0.6, 0.3, 4).tolist() == pytest.approx([0.3, 0.5, 0.7, 0.9])


@pytest.mark.parametrize("rescale", ["none", "inverse_density", "l1_norm"])
def test_della_linear(rescale):
    chances = [0.3, 0.5, 0.7]  # 0.5 ∓ 0.2, and 0.5 between them
    kept = kept_by_hand(chances)
    assert kept != [[True] * 3] * 2
    assert any(map(any, kept))
    left = (torch.tensor(ROWS) * torch.tensor(kept)).abs().sum().item()
    growth = {
        "none": [1, 1, 1],
        "inverse_density": [1 / 0.3, 1 / 0.5, 1 / 0.7],
        "l1_norm": [31 / left] * 3,  # Σ|δ| = 1+4+2+9+7+8
    }[rescale]
    expected = [
        [value * bit * growth[rank] for value, bit, rank in zip(*three, strict=True)]
        for three in zip(ROWS, kept, RANKS, strict=True)
    ]
    parameters = DellaLinearParameters((1.0,), (0.5,), (0.2,), False, rescale, 1.0)
    out = merged("della_linear", [ROWS], parameters)
    torch.testing.assert_close(out, torch.tensor(expected))


def test_della_elects_after_dropping_and_takes_the_mean():
    # density 1 drops nothing: sums [1, 3] elect [+, +]: 3, and the mean of 1 and 2; λ = 0.5
    parameters = DellaParameters((1.0, 1.0), (1.0, 1.0), (0.15, 0.15), True, "l1_norm", 0.5)
    out = merged("della", [[[3, 1]], [[-2, 2]]], parameters)
    assert out.tolist() == [[1.5, 0.75]]


def test_della_in_rows_of_one_keeps_with_the_density():
    # mergekit: (1 − 1) / (1 − 1) is no chance. Ours is d = 0.5, whatever ε
    parameters = DellaLinearParameters((1.0,), (0.5,), (0.4,), False, "none", 1.0)
    out = merged("della_linear", [[[1.0]] * 2000], parameters)
    assert int(out.sum()) == pytest.approx(1000, abs=5 * math.sqrt(2000 * 0.25))


def test_model_stock_filter_wise():
    # row 1: c = ⟨[3,4],[4,3]⟩ / 25 = 0.96, each share 0.96/1.96; row 2: c = 0: the base stays;
    # row 3: c = 1, each share 1/2: the mean
    first = [[3, 4], [1, 0], [1, 2]]
    second = [[4, 3], [0, 1], [3, 6]]
    out = merged("model_stock", [first, second], ModelStockParameters(True))
    share = 0.96 / 1.96
    assert out.flatten().tolist() == pytest.approx([7 * share, 7 * share, 0, 0, 2, 4], rel=1e-6)


def test_model_stock_filter_wise_of_a_vector_is_one_row():
    out = merged("model_stock", [[3, 4], [4, 3]], ModelStockParameters(True))
    assert out.tolist() == pytest.approx([7 * 0.96 / 1.96] * 2, rel=1e-6)


def test_nuslerp_by_row():
    # t = 1/2; row 1: Ω = π/2, both shares sin(π/4)/1 = √½; row 2: colinear, half and half
    parameters = NuslerpParameters((1.0, 1.0), False, False)
    out = merged("nuslerp", [[[2, 0], [1, 2]], [[0, 4], [3, 6]]], parameters)
    half = math.sqrt(0.5)
    assert out.flatten().tolist() == pytest.approx([2 * half, 4 * half, 2, 4], rel=1e-6)


def test_nuslerp_by_column():
    # the same numbers, turned: `nuslerp_row_wise` takes the columns, as in mergekit
    parameters = NuslerpParameters((1.0, 1.0), True, False)
    out = merged("nuslerp", [[[2, 1], [0, 2]], [[0, 3], [4, 6]]], parameters)
    half = math.sqrt(0.5)
    assert out.flatten().tolist() == pytest.approx([2 * half, 2, 4 * half, 4], rel=1e-6)


@pytest.mark.parametrize("row_wise", [True, False])
def test_nuslerp_of_a_vector_is_one_row(row_wise):
    # t = 3/4, Ω = π/2: sin(π/8)·[2,0] + sin(3π/8)·[0,1]
    out = merged("nuslerp", [[2, 0], [0, 1]], NuslerpParameters((1.0, 3.0), row_wise, False))
    assert out.tolist() == pytest.approx([2 * math.sin(math.pi / 8), math.sin(3 * math.pi / 8)])


def test_nuslerp_by_column_in_three_dimensions_goes_along_the_first():
    # shape (2, 2, 1): [2,0] and [0,4] are a quarter turn apart, [1,2] and [3,6] colinear
    first = [[[2], [1]], [[0], [2]]]
    second = [[[0], [3]], [[4], [6]]]
    out = merged("nuslerp", [first, second], NuslerpParameters((1.0, 1.0), True, False))
    half = math.sqrt(0.5)
    assert out.flatten().tolist() == pytest.approx([2 * half, 2, 4 * half, 4], rel=1e-6)


def test_divergence_of_rows():
    # softmax of [0, 0] is [½, ½], of [ln 3, 0] [¾, ¼]: KL = ¾ ln 1.5 + ¼ ln 0.5; a row that moves
    # as a whole keeps its softmax
    base, expert = torch.zeros(2, 2), torch.tensor([[math.log(3), 0.0], [5.0, 5.0]])
    expected = [0.75 * math.log(1.5) + 0.25 * math.log(0.5), 0]
    assert row_divergence(current(), base, expert)[:, 0].tolist() == pytest.approx(
        expected, abs=1e-7
    )


def test_arcee_fusion_takes_outstanding_entries_only():
    # one row, so KL is one factor: |δ| = [1, 2, 3, 4, 20] has quartiles at places 1, 2, 3, that is
    # 2, 3 and 4, and a threshold of 3 + 1.5·(4 − 2) = 6: 20 alone is taken
    out = merged("arcee_fusion", [[0] * 5, [1, -2, 3, -4, 20]], ArceeFusionParameters())
    assert out.tolist() == [0, 0, 0, 0, 20]


def test_arcee_fusion_weighs_entries_by_how_much_their_row_changed():
    # KL of [d, −d] against [0, 0], times d: 0.06 for d = 0.5, 0.33 for 1, 1.2 for 2. In order
    # 0.06 four times, 0.33 six times, 1.2 twice: places ⌊11/4⌋, ⌊22/4⌋, ⌊33/4⌋ = 2, 5, 8 hold
    # 0.06, 0.33, 0.33, and the threshold is 0.33 + 1.5·(0.33 − 0.06) = 0.74
    rows = [[0.5, -0.5]] * 2 + [[1.0, -1.0]] * 3 + [[2.0, -2.0]]
    out = merged("arcee_fusion", [[[0.0, 0.0]] * 6, rows], ArceeFusionParameters())
    assert out.tolist() == [[0, 0]] * 5 + [[2, -2]]
