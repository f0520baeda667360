"""Methods on whole matrices: by hand, their laws, and plain decompositions in float64 beside them.

The references use an SVD with its arbitrary signs and rotations; that these agree with ours, which
has none, says that they do not matter.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from merge_ops.measures.measure import Block, TensorJob
from merge_ops.measures.spectrum import DEPENDENT
from merge_ops.measures.trimming import TrimMeasure
from merge_ops.methods import METHODS
from merge_ops.methods.iso import IsoCParameters, IsoCtsParameters, common_and_own_counts
from merge_ops.methods.tsvm import TsvmParameters
from merge_ops.methods.widen import WidenParameters
from tests.merges.method_settings import merged_whole

TSVM, ISO_C, WIDEN = TsvmParameters(1.0), IsoCParameters(1.0), WidenParameters(1.0, 1.0)
SHAPES = st.tuples(st.integers(3, 24), st.integers(3, 24))


pytestmark = pytest.mark.usefixtures("arithmetic")


def merged(name, inputs, parameters, tensor="t"):
    """One method on whole tensors, measured as the stream would."""
    tensors = [torch.as_tensor(each, dtype=torch.float32) for each in inputs]
    return merged_whole(name, tensors, parameters, tensor=tensor)


def drawn(shape, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def close(ours, reference, rtol=1e-6):
    """Equal up to float32 rounding of the largest entry."""
    worst = (ours.double() - torch.as_tensor(reference).double()).abs().max()
    assert float(worst) <= rtol * float(torch.as_tensor(reference).abs().max())


# ------------------------------------------------------------------ trim: global


def test_trimming_two_tensors_as_one(arithmetic):
    # of |δ| = 1, 4, 3 | 5, 3, 2 together, ⌊0.5 · 6⌋ = 3 are kept: 5, 4 and the first of the two 3
    blocks = [
        Block(0, 0, [torch.tensor([1.0, -4.0, 3.0])]),
        Block(1, 3, [torch.tensor([5.0, -3.0, 2.0])]),
    ]
    job = TensorJob("the whole model", (6,), ("e",), 0, arithmetic)
    measure = TrimMeasure(job, [[(3, 0)]], ["none"])
    while measure.wanted:
        measure.absorb(measure.observe(each) for each in blocks)
    trimmed = [measure.at(each, 0)[0].made(arithmetic) for each in blocks]
    assert [each.tolist() for each in trimmed] == [[0, -4, 3], [5, 0, 0]]


# ------------------------------------------------------------------ tsvm


def test_tsvm():
    # T = 2, of 2 ranks each keeps one: 3 along (e1, e1) and 5 along (e2, e2); orthogonal already
    out = merged("tsvm", [[[3, 0], [0, 1]], [[2, 0], [0, 5]]], TSVM)
    assert out.tolist() == [[3, 0], [0, 5]]


def test_tsvm_of_directions_that_overlap():
    # u₁ = v₁ = (1, 0) with σ 5, u₂ = v₂ = (0.6, 0.8) with σ 10. The orthonormal pair nearest to two
    # unit vectors keeps their bisector, (2, 1)/√5, and stands 45° to either side of it:
    # ũ₁ = (3, −1)/√10, ũ₂ = (1, 3)/√10; 5 ũ₁ũ₁ᵀ + 10 ũ₂ũ₂ᵀ = [[55, 15], [15, 95]] / 10
    second = [[3.6, 4.8], [4.8, 6.4]]
    out = merged("tsvm", [[[5, 0], [0, 0]], second], TSVM)
    assert out.numpy() == pytest.approx(np.array([[5.5, 1.5], [1.5, 9.5]]), rel=1e-6)


def test_tsvm_averages_vectors_and_matrices_of_too_few_ranks():
    assert merged("tsvm", [[1, 2], [3, 6]], TsvmParameters(0.5)).tolist() == [1, 2]
    assert merged("tsvm", [[[1, 2]], [[3, 6]]], TSVM).tolist() == [[2, 4]]


@given(SHAPES, st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_tsvm_of_one_expert_gives_it_back(shape, seed):
    (delta,) = drawn(shape, 1, seed)
    assert torch.allclose(merged("tsvm", [delta], TSVM), delta, rtol=1e-6, atol=1e-7)


def test_tsvm_of_equal_experts_is_their_leading_part():
    # dependent singular vectors are shared out: three times a third of what one keeps
    delta = drawn((12, 9), 1)[0]
    u, s, v = np.linalg.svd(delta.double().numpy(), full_matrices=False)
    close(merged("tsvm", [delta] * 3, TSVM), (u[:, :3] * s[:3]) @ v[:3])


def test_tsvm_of_experts_of_low_rank_in_different_directions_is_their_sum():
    # what a task vector lacks is left out, so nothing stands in the way of the other
    first, second = torch.zeros(2, 8, 6)
    first[:4, :3] = drawn((4, 1), 1)[0] @ drawn((1, 3), 1, 1)[0]
    second[4:, 3:] = drawn((4, 1), 1, 2)[0] @ drawn((1, 3), 1, 3)[0]
    close(merged("tsvm", [first, second], TSVM), first + second)


def test_tsvm_of_experts_that_did_not_move():
    assert not merged("tsvm", torch.zeros(3, 5, 4), TSVM).any()


def tsvm_reference(deltas):
    """The authors' way, by four kinds of SVD, in float64."""
    kept = min(deltas[0].shape) // len(deltas)
    parts = [np.linalg.svd(each.double().numpy(), full_matrices=False) for each in deltas]
    left = np.hstack([u[:, :kept] for u, _, _ in parts])
    right = np.vstack([v[:kept] for _, _, v in parts])
    values = np.concatenate([s[:kept] for _, s, _ in parts])
    p, lefts, q = np.linalg.svd(left, full_matrices=False)
    r, rights, t = np.linalg.svd(right, full_matrices=False)
    for found in (lefts, rights):  # directions that depend on others are left out, by intent
        assume(not found.size or found[-1] > 10 * DEPENDENT * found[0])
    return p @ q @ np.diag(values) @ r @ t


@given(SHAPES, st.integers(1, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_tsvm_equals_the_decompositions_it_stands_for(shape, count, seed):
    deltas = drawn(shape, count, seed)
    close(merged("tsvm", deltas, TSVM), tsvm_reference(deltas), rtol=2e-6)


# ------------------------------------------------------------------ iso_c


def test_iso_c():
    # the sum is diag(6, −2): σ = 6, 2, their mean 4, signs kept
    out = merged("iso_c", [[[5, 0], [0, -1]], [[1, 0], [0, -1]]], ISO_C)
    assert out.numpy() == pytest.approx(np.array([[4, 0], [0, -4]]))


def test_iso_c_leaves_alone_what_nobody_moved():
    # the sum diag(6, 0) has σ = 6, 0 of mean 3; where σ is 0 there is no direction
    out = merged("iso_c", [[[4, 0], [0, 0]], [[2, 0], [0, 0]]], IsoCParameters(0.5))
    assert out.numpy() == pytest.approx(np.array([[1.5, 0], [0, 0]]))


def test_iso_c_averages_vectors():
    assert merged("iso_c", [[1, 2], [3, 6]], ISO_C).tolist() == [2, 4]


@given(st.integers(2, 16), st.floats(0.01, 100), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_iso_c_of_a_multiple_of_an_orthogonal_matrix_is_itself(size, scale, seed):
    orthogonal = scale * torch.linalg.qr(drawn((size, size), 1, seed)[0].double())[0].float()
    close(merged("iso_c", [orthogonal], ISO_C), orthogonal, rtol=2e-6)


@given(SHAPES, st.integers(1, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_iso_c_equals_the_decomposition_it_stands_for(shape, count, seed):
    deltas = drawn(shape, count, seed)
    u, s, v = np.linalg.svd(sum(each.double() for each in deltas).numpy(), full_matrices=False)
    close(merged("iso_c", deltas, ISO_C), s.mean() * u @ v, rtol=2e-6)


# ------------------------------------------------------------------ iso_cts


def test_iso_cts():
    # of 4 directions half are common, one is each expert's own. The sum diag(6, 5, 2, 1) has 6 and
    # 5 along e₁, e₂; beside these the experts have 2 along e₃ and 1 along e₄: mean 14/4
    first, second = np.diag([6.0, 0, 2, 0]), np.diag([0.0, 5, 0, 1])
    out = merged("iso_cts", [first, second], IsoCtsParameters(0.5, 1.0))
    assert out.numpy() == pytest.approx(np.diag([3.5] * 4), abs=1e-6)


def test_iso_cts_brings_in_what_cancels_in_the_sum():
    # 2 and −2 along e₃ cancel in the sum diag(6, 5, 0, 3), of which e₁ and e₂ are common; beside
    # these the first expert's leading direction is e₃ with 2, the second's e₄ with 3: mean 16/4
    first, second = np.diag([6.0, 0, 2, 0]), np.diag([0.0, 5, -2, 3])
    out = merged("iso_cts", [first, second], IsoCtsParameters(0.5, 1.0))
    assert out.numpy() == pytest.approx(np.diag([4.0] * 4), abs=1e-6)


def test_counts_of_common_and_own_directions():
    # ⌊10 · 0.8⌋ = 8 leaves 2, of which each of 3 experts gets round(2/3) = 1: 7 in common
    assert common_and_own_counts(10, 0.8, 3) == (7, 1)
    assert common_and_own_counts(2, 0.0, 3) == (2, 0)


@given(SHAPES, st.integers(1, 3), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_iso_cts_with_everything_in_common_is_iso_c(shape, count, seed):
    deltas = drawn(shape, count, seed)
    out = merged("iso_cts", deltas, IsoCtsParameters(1.0, 1.0))
    close(out, merged("iso_c", deltas, ISO_C), rtol=2e-6)


@given(SHAPES, st.floats(0, 1), st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_iso_cts_of_one_expert_is_iso_c(shape, fraction, seed):
    (delta,) = drawn(shape, 1, seed)
    out = merged("iso_cts", [delta], IsoCtsParameters(fraction, 1.0))
    close(out, merged("iso_c", [delta], ISO_C), rtol=2e-6)


def iso_cts_reference(deltas, fraction):
    """The authors' way, by SVDs, in float64."""
    deltas = [each.double().numpy() for each in deltas]
    common, own = common_and_own_counts(min(deltas[0].shape), fraction, len(deltas))
    u, s, v = np.linalg.svd(sum(deltas), full_matrices=False)
    parts = [(u[:, :common], s[:common], v[:common])]
    for each in deltas:
        beside = each - parts[0][0] @ parts[0][0].T @ each
        u, s, v = np.linalg.svd(beside, full_matrices=False)
        parts.append((u[:, :own], s[:own], v[:own]))
    left, values, right = (
        np.concatenate([part[k] for part in parts], axis=axis)
        for k, axis in ((0, 1), (1, 0), (2, 0))
    )
    p, of_left, q = np.linalg.svd(left, full_matrices=False)
    r, of_right, t = np.linalg.svd(right, full_matrices=False)
    for found in (of_left, of_right):  # directions that nearly depend on others are left out
        assume(not found.size or found[-1] > 10 * DEPENDENT * found[0])
    return values.mean() * p @ q @ r @ t


@given(SHAPES, st.integers(1, 3), st.sampled_from([0.0, 0.3, 0.8]), st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_iso_cts_equals_the_decompositions_it_stands_for(shape, count, fraction, seed):
    deltas = drawn(shape, count, seed)
    reference = iso_cts_reference(deltas, fraction)
    close(merged("iso_cts", deltas, IsoCtsParameters(fraction, 1.0)), reference, rtol=5e-6)


@pytest.mark.parametrize("name", ["tsvm", "iso_c"])
def test_a_turned_matrix_gives_the_turned_result(name):
    deltas = drawn((30, 8))
    parameters = METHODS[name].parameters(1.0)
    turned = merged(name, [each.mT.contiguous() for each in deltas], parameters)
    assert torch.equal(turned, merged(name, deltas, parameters).mT)


# ------------------------------------------------------------------ widen

BASE = [[3.0, 1.0], [4.0, 0.0]]  # columns of length 5 and 1


def test_widen():
    # First expert: columns (6, 8), length 10, same direction, and (1, 0) unchanged. Of lengths the
    # first moved most: ranks ½, 0; of directions both moved by nothing: by their index, ranks 0, ½.
    # Second: columns (3, 4) unchanged and (0, 2): ranks 0, ½ of lengths and 0, ½ of directions.
    # Above the mean rank ¼ a score is 1, others are e^rank / Σ e^rank:
    #   lengths: column 1: 1, 1/(1 + √e);  column 2: 1/(1 + √e), 1
    #   directions: column 1: ½, ½;  column 2: 1, 1
    # shares: ¾ of the first expert's column 1, (1/(1 + √e) + 1)/2 and 1 of columns 2
    first, second = [[6.0, 1.0], [8.0, 0.0]], [[3.0, 0.0], [4.0, 2.0]]
    out = merged("widen", [BASE, first, second], WIDEN)
    expected = np.array([[3 + 0.75 * 3, 0], [4 + 0.75 * 4, 2]])
    assert out.numpy() == pytest.approx(expected)


def test_widen_of_vectors():
    # |δ| = 1, 3 of mean 2 and 2, 0 of mean 1; above 1.2 times that: 3 (2.4) and 2 (1.2), share 0.5;
    # others e^|δ| / Σ: entry 1 of the first e/(e + e²), entry 2 of the second has δ = 0
    e = np.e
    out = merged("widen", [[1, 1], [2, 4], [3, 1]], WidenParameters(1.2, 0.5))
    assert out.tolist() == pytest.approx([1 + e / (e + e**2) + 0.5 * 2, 1 + 0.5 * 3])


def test_widen_takes_the_tokens_of_an_embedding_for_columns():
    experts = drawn((7, 5), 3)
    turned = [each.mT.contiguous() for each in experts]
    out = merged("widen", experts, WIDEN, "model.embed_tokens.weight")
    assert torch.equal(out, merged("widen", turned, WIDEN).mT)


@given(SHAPES, st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_widen_of_one_expert_is_the_expert(shape, seed):
    # a softmax over one is 1, and so is the calibrated score
    base, expert = drawn(shape, 2, seed)
    torch.testing.assert_close(merged("widen", [base, expert], WIDEN), expert)


def test_widen_of_columns_of_zeros():
    # no direction on either side counts as the same one, on one side as orthogonal
    base, expert = torch.zeros(3, 3), torch.zeros(3, 3)
    expert[0, 0] = 1
    out = merged("widen", [base, expert, expert], WIDEN)
    assert out.isfinite().all()
    assert float(out[0, 0]) == 2  # moved most by both, so both have share 1
