"""Vectors as sums of the nearest rows of a dictionary, and a rotation between two dictionaries.

Both are approximations of mergekit-tokensurgeon (LGPL; reimplemented from its formulas). Of a
target x, its k nearest atoms p and their distances d:

    distance_proportional   w ∝ 1 / max(d, 1e-6), or the cosine where nearness is told by it
    barycentric             argmin ‖x − Σ w p‖ with Σ w = 1
    least_squares           argmin ‖x − Σ w p‖

`rotation` is the orthogonal Procrustes map between the principal directions of two dictionaries
(`landmark_pca`). mergekit turns by its inverse, so that a donor which is a turned copy of the model
does not give the model's rows back; here it does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
DISTANCE_PROPORTIONAL, BARYCENTRIC, LEAST_SQUARES = SCHEMES = (
    "distance_proportional", "barycentric", "least_squares",
)  # fmt: skip
EUCLIDEAN, COSINE = DISTANCES = ("euclidean", "cosine")
_NEAREST = 1e-6
"""A distance counts as no less: an atom that is the target has nearly all of the share."""
_MORE = 16
"""Twice k and so many atoms are looked at in float64, for float32 may rank near ones wrongly."""
_ROWS = 1 << 12  # that are summed in float64 at once


def atoms_looked_at(k: int) -> int:
    """Return how many atoms are looked at in float64 for each target."""
    return 2 * k + _MORE


def nearest_shares(
    targets: Tensor, atoms: Tensor, k: int, scheme: str, distance: str
) -> tuple[Tensor, Tensor]:
    """Return the k nearest atoms of each target, and how much of each: (B, k) int64 and float64.

    `targets` is (B, D) and `atoms` (N, D), both float32 and finite; k is at most N. Of equally near
    atoms the first counts. A cosine below zero has no share; where all are, all have the same.
    """
    torch: Any = import_module("torch")  # whose linear algebra has no types
    known: Any = atoms
    lengths = known.norm(dim=1)
    alike = targets @ known.T
    if distance == COSINE:
        alike /= lengths.clamp_min(1e-30)
    else:
        alike -= lengths.square() / 2
    looked = torch.topk(alike, min(atoms_looked_at(k), len(known)), dim=1).indices.sort(dim=1)
    candidates = looked.values
    wanted: Any = targets.double()
    points: Any = known[candidates].double()
    if distance == COSINE:
        products = torch.einsum("bd,bnd->bn", wanted, points)
        sizes = wanted.norm(dim=1, keepdim=True) * points.norm(dim=2)
        far = 1 - products / sizes.clamp_min(_NEAREST)
    else:
        far = (points - wanted[:, None]).norm(dim=2)
    order = far.argsort(dim=1, stable=True)[:, :k]
    far, chosen = far.gather(1, order), candidates.gather(1, order)
    if scheme == DISTANCE_PROPORTIONAL:
        shares = (1 - far).clamp_min(0) if distance == COSINE else 1 / far.clamp_min(_NEAREST)
        total = shares.sum(dim=1, keepdim=True)
        return chosen, torch.where(total > 0, shares / total.clamp_min(1e-300), 1 / k)
    points = points.gather(1, order[:, :, None].expand(-1, -1, points.shape[2]))
    return chosen, _fitted(torch, wanted, points, scheme)


def _fitted(torch: Any, targets: Any, points: Any, scheme: str) -> Any:
    """The shares of points (B, k, D) whose sums come nearest to targets (B, D), the smallest."""
    if scheme == LEAST_SQUARES:
        found = torch.linalg.lstsq(points.mT, targets[:, :, None], driver="gelsd")
        return found.solution[:, :, 0]
    # Shares that sum to one: those of the differences from the first point are free.
    first = points[:, :1]
    if points.shape[1] == 1:
        return torch.ones((len(points), 1), dtype=torch.float64)
    found = torch.linalg.lstsq(
        (points[:, 1:] - first).mT, (targets - first[:, 0])[:, :, None], driver="gelsd"
    )
    others = found.solution[:, :, 0]
    return torch.cat([1 - others.sum(dim=1, keepdim=True), others], dim=1)


class Rotation:
    """A rotation takes vectors (D_a,) to (D_b,) as it takes `atoms` (N, D_a) to `images` (N, D_b).

    Both are centred, turned to their principal directions, of which as many count as the smaller
    has, and turned onto one another so that the distances are least. Sums run in float64.
    """

    def __init__(self, atoms: Tensor, images: Tensor) -> None:
        torch: Any = import_module("torch")
        self._from, self._to = (_mean(each) for each in (atoms, images))
        within_a, across, within_b = (
            _products(torch, one, two, *means)
            for one, two, means in (
                (atoms, atoms, (self._from, self._from)),
                (images, atoms, (self._to, self._from)),
                (images, images, (self._to, self._to)),
            )
        )
        count = min(atoms.shape[1], images.shape[1])
        basis_a, basis_b = (
            torch.linalg.eigh(each).eigenvectors.flip(1)[:, :count] for each in (within_a, within_b)
        )
        left, _, right = torch.linalg.svd(basis_b.T @ across @ basis_a)
        self._map = basis_a @ (left @ right).T @ basis_b.T

    def __call__(self, targets: Tensor) -> Tensor:
        """Return where vectors (B, D_a) come to lie, (B, D_b) float64."""
        turned: Any = (targets.double() - self._from) @ self._map
        return turned + self._to


def _mean(rows: Any) -> Any:
    """The mean of rows (N, D), (D,) float64."""
    total: Any = sum(part.double().sum(dim=0) for part in rows.split(_ROWS))
    return total / len(rows)


def _products(torch: Any, one: Any, two: Any, mean_one: Any, mean_two: Any) -> Any:
    """The products of the columns of centred rows, (D_one, D_two) float64."""
    total: Any = torch.zeros((one.shape[1], two.shape[1]), dtype=torch.float64)
    for left, right in zip(one.split(_ROWS), two.split(_ROWS), strict=True):
        total += (left.double() - mean_one).T @ (right.double() - mean_two)
    return total
