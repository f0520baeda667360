"""Matching pursuit by hand, against plain least squares in float64, and its laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.measures.matching_pursuit import matching_pursuit, targets_at_once


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_definition(target, atoms, k):
    """The definition, in float64, with numpy's least squares at every step."""
    chosen, rest, shares = [], target, np.zeros(0)
    for _ in range(k):
        alike = np.abs(atoms @ rest)
        alike[chosen] = -1
        chosen.append(int(alike.argmax()))
        shares = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
        rest = target - shares @ atoms[chosen]
    return chosen, shares


def test_by_hand():
    """x = (3, 1): first the long atom (2, 2), |⟨x, a⟩| = 8; then (1, 0): x = ½(2, 2) + 2(1, 0)."""
    atoms = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    chosen, shares = matching_pursuit(torch.tensor([[3.0, 1.0]]), atoms, 2)
    assert chosen.tolist() == [[2, 0]]
    torch.testing.assert_close(shares, torch.tensor([[0.5, 2.0]], dtype=torch.float64))


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_it_is_the_definition(seed, k):
    targets, atoms = drawn(5, 12, seed=seed), drawn(30, 12, seed=seed + 1)
    chosen, shares = matching_pursuit(targets, atoms, k)
    for at, target in enumerate(targets):
        wanted, amounts = by_definition(target.double().numpy(), atoms.double().numpy(), k)
        found = dict(zip(chosen[at].tolist(), shares[at].tolist(), strict=True))
        rest = target.double() - sum(v * atoms[i].double() for i, v in found.items())
        if k < 12:
            assert list(found) == wanted
            np.testing.assert_allclose(list(found.values()), amounts, rtol=1e-6, atol=1e-8)
        else:  # everything is spanned, and the last atom is as good as another
            assert rest.norm() < 1e-6 * target.norm()


@given(st.integers(0, 2**31))
def test_a_target_that_is_an_atom_or_zero(seed):
    """The first has a rest of zero after one step; nothing is made of the second."""
    atoms = torch.nn.functional.normalize(drawn(10, 16, seed=seed))
    targets = torch.stack([atoms[3], torch.zeros(16)])
    chosen, shares = matching_pursuit(targets, atoms, 5)
    assert chosen[0, 0] == 3
    torch.testing.assert_close(shares[0], torch.eye(5, dtype=torch.float64)[0])
    assert not shares[1].any()


def test_more_atoms_than_there_are_or_than_say_anything():
    """Copies of an atom are passed over: mergekit would divide by 1e-8."""
    atoms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 1.0]])
    chosen, shares = matching_pursuit(torch.tensor([[2.0, 1.0]]), atoms, 6)
    assert shares.shape == (1, 6)
    assert torch.isfinite(shares).all()
    made = (shares[0, :4, None] * atoms[chosen[0, :4]]).sum(dim=0)
    torch.testing.assert_close(made, torch.tensor([2.0, 1.0], dtype=torch.float64))


def test_equal_atoms_go_to_the_first():
    chosen, _ = matching_pursuit(torch.ones(1, 3), torch.ones(4, 3), 1)
    assert chosen.tolist() == [[0]]


@pytest.mark.parametrize("cut", [1, 3, 7])
def test_other_batches_give_the_same_atoms(cut):
    targets, atoms = drawn(7, 24), drawn(50, 24, seed=1)
    chosen, shares = matching_pursuit(targets, atoms, 6)
    parts = [matching_pursuit(targets[at : at + cut], atoms, 6) for at in range(0, 7, cut)]
    assert torch.equal(torch.cat([each[0] for each in parts]), chosen)
    torch.testing.assert_close(torch.cat([each[1] for each in parts]), shares)


def test_the_memory_of_a_batch_is_bounded():
    for k, width in ((64, 4096), (64, 896), (1024, 16384), (4, 64)):
        count = targets_at_once(k, width)
        assert count == 1 or 8 * count * k * width <= 64 << 20
        assert 1 <= count <= 256
