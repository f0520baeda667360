"""Orthogonal matching pursuit: vectors as sums of a few rows of a dictionary.

Goddard and Fernandes Neto 2025 (2506.06607) transplant tokenizers by it, after Pati, Rezaiifar and
Krishnaprasad 1993. For a target x and atoms a_i (rows):

    r = x;  repeat k times:  i = argmax |⟨r, a_i⟩| over atoms not chosen yet;
                             c = argmin ‖x − Σ c_j a_j‖ over the chosen;  r = x − Σ c_j a_j

Atoms are not normalized, so long rows are preferred, as mergekit-tokensurgeon has it. Here c comes
from a QR decomposition in float64 that grows by a column a step, orthogonalized twice; a target is
left alone once its rest is zero in float32, and an atom that the chosen ones span already is passed
over. mergekit divides by 1e-8 there, which gives numbers without meaning where k is large.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
_ZERO = 1e-7
"""Of a target's length: a shorter rest is below what float32 tells apart."""
_SPANNED = 1e-10
"""Of an atom's length: what is left of one that others span, in float64."""
_MOST_BYTES, _MOST_TARGETS = 64 << 20, 256


def targets_at_once(k: int, width: int) -> int:
    """Return how many targets (width,) are worked on together, which keeps memory bounded.

    It depends on nothing else, so results do not depend on threads or memory.
    """
    return max(1, min(_MOST_TARGETS, _MOST_BYTES // (8 * k * width)))


def matching_pursuit(targets: Tensor, atoms: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return which atoms make each target, and how much of each: (B, k) int64 and float64.

    `targets` is (B, D) and `atoms` (N, D), both float32 and finite. Fewer than k atoms are used
    where a target needs no more; the others then count 0.
    """
    torch: Any = import_module("torch")  # whose linear algebra has no types
    count, width = targets.shape
    steps = min(k, atoms.shape[0])
    wanted: Any = targets.double()
    known: Any = atoms
    lengths = wanted.norm(dim=1)
    basis = torch.zeros((count, steps, width), dtype=torch.float64)
    upper = torch.eye(steps, dtype=torch.float64).repeat(count, 1, 1)
    shares = torch.zeros((count, steps), dtype=torch.float64)  # of each basis vector in the target
    chosen = torch.zeros((count, k), dtype=torch.int64)
    rest = wanted.clone()
    taken = torch.zeros((count, atoms.shape[0]), dtype=torch.bool)
    at = torch.arange(count)
    for step in range(steps):
        alike = (rest.float() @ known.T).abs_()
        alike[taken] = -1.0
        picked = torch.from_numpy(alike.numpy().argmax(axis=1))
        taken[at, picked] = True
        chosen[:, step] = picked
        atom = known[picked].double()
        before = basis[:, :step]
        part = torch.zeros((count, step), dtype=torch.float64)
        left = atom
        for _ in range(2):  # once leaves a part of what was taken away
            again = torch.einsum("btd,bd->bt", before, left)
            left = left - torch.einsum("bt,btd->bd", again, before)
            part = part + again
        norm = left.norm(dim=1)
        useful = norm > _SPANNED * atom.norm(dim=1)
        useful &= rest.norm(dim=1) > _ZERO * lengths
        direction = torch.where(useful[:, None], left / norm.clamp_min(1e-300)[:, None], 0.0)
        basis[:, step] = direction
        upper[:, :step, step] = torch.where(useful[:, None], part, 0.0)
        upper[:, step, step] = torch.where(useful, norm, 1.0)
        share = torch.einsum("bd,bd->b", direction, wanted)
        shares[:, step] = share
        rest = rest - share[:, None] * direction
    solved = torch.linalg.solve_triangular(upper, shares[:, :, None], upper=True)[:, :, 0]
    found = torch.zeros((count, k), dtype=torch.float64)
    found[:, :steps] = solved
    return chosen, found
