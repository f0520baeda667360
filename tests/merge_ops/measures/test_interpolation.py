"""Sums of the nearest atoms, by hand and by their definitions; rotations found again."""

import numpy as np
import pytest
import torch

from merge_ops.measures.interpolation import DISTANCES, SCHEMES, Rotation, nearest_shares


def drawn(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((rows, columns), generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    atoms = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0], [9.0, 9.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    chosen, shares = nearest_shares(targets, atoms, 2, "distance_proportional", "euclidean")
    assert chosen.tolist() == [[0, 1], [2, 0]]
    assert shares[0].tolist() == pytest.approx([0.75, 0.25])
    assert shares[1].tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    _, shares = nearest_shares(targets, atoms, 2, "barycentric", "euclidean")
    assert shares.tolist() == [pytest.approx([0.75, 0.25]), pytest.approx([1.0, 0.0])]
    chosen, shares = nearest_shares(targets, atoms[1:], 2, "distance_proportional", "cosine")
    assert chosen[0].tolist() == [0, 2]
    assert shares[0].tolist() == pytest.approx([0.585786, 0.414214], abs=1e-5)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_nearest_are_those_of_the_definition(scheme: str, distance: str):
    atoms, targets, k = drawn(300, 12), drawn(9, 12, 1), 5
    chosen, shares = nearest_shares(targets, atoms, k, scheme, distance)
    a, t = atoms.double().numpy(), targets.double().numpy()
    far = np.linalg.norm(t[:, None] - a[None], axis=2)
    if distance == "cosine":
        far = 1 - (t @ a.T) / np.outer(np.linalg.norm(t, axis=1), np.linalg.norm(a, axis=1))
    order = np.argsort(far, axis=1)[:, :k]
    assert chosen.numpy().tolist() == order.tolist()
    if scheme != "least_squares":
        assert shares.sum(dim=1).numpy() == pytest.approx(np.ones(9))
    for row, own in enumerate(order):
        rest = t[row] - shares[row].numpy() @ a[own]
        if scheme == "least_squares":  # what is left is at right angles to all that was used
            assert a[own] @ rest == pytest.approx(np.zeros(k), abs=1e-9)
        elif scheme == "barycentric":
            assert (a[own[1:]] - a[own[0]]) @ rest == pytest.approx(np.zeros(k - 1), abs=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_atom_has_all_of_the_share_and_opposite_ones_have_equal_shares(scheme: str):
    _, shares = nearest_shares(drawn(2, 3), drawn(4, 3, 1), 1, scheme, "euclidean")
    if scheme != "least_squares":
        assert shares.tolist() == [[1.0], [1.0]]
    away = torch.tensor([[-1.0, 0.0], [-1.0, 1.0]])
    _, shares = nearest_shares(torch.tensor([[1.0, 0.0]]), away, 2, SCHEMES[0], "cosine")
    assert shares.tolist() == [[0.5, 0.5]]


def turned(values: torch.Tensor, columns: int, seed: int) -> torch.Tensor:
    """Values (n, d) in d of so many columns, turned."""
    turn = torch.linalg.qr(drawn(columns, columns, seed)).Q.double()
    return values @ turn[: values.shape[1]]


@pytest.mark.parametrize(("before", "behind"), [(6, 6), (6, 9), (9, 6)])
def test_a_rotation_is_found_again(before: int, behind: int):
    """Also one into more columns, or out of columns that the atoms do not use."""
    flat = drawn(5000, 6).double()
    atoms, images = turned(flat, before, 4) + 2, turned(flat, behind, 5) - 1
    found = Rotation(atoms.float(), images.float())(atoms[:7].float())
    torch.testing.assert_close(found, images[:7], rtol=1e-4, atol=1e-4)
