"""Aligning: the symmetry that brings a model's weights back next to its base's, without a key.

It undoes orders of neurons, heads and of the residual stream, signs, and factors, be they a
protection's or of a training of its own. Two models' matrices of one layer are held at a time. What
was mixed by an arbitrary matrix (an orthogonal residual stream, mixed values) is not undone:
`after` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, Fetch
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.progress import Progress
from merge_ops.symmetries.anatomy import Anatomy, read_anatomy
from merge_ops.symmetries.keys import turned
from merge_ops.symmetries.matching import assigned, match_rows
from merge_ops.symmetries.monomial import Monomial, by_blocks, identity
from merge_ops.symmetries.symmetry import Change, LayerSymmetry, Symmetry, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Matrices = Mapping[str, Matrix]

VERSION = 1
MOST_TOKENS = 4096  # rows of the embedding that say which column is which
SNAP = 0.25
"""Of a factor's binary logarithm: nearer to a whole number than this it is that power of two."""
_PARTS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class Alignment:
    """An alignment is a symmetry that was found, and how far the model was from the base.

    `before` and `after` are ‖model − base‖ / ‖base‖ over the matrices of all layers. `changed`
    names what had to be changed, of mlp, vo, qk, heads, norms and residual.
    """

    symmetry: Symmetry
    before: float
    after: float
    changed: tuple[str, ...]

    @property
    def helped(self) -> bool:
        """Return whether the model is nearer to the base than it was, by half or more."""
        return bool(self.changed) and self.after < self.before / 2


def align(
    base: Checkpoint, model: Checkpoint, fetch: Fetch, progress: Progress | None = None
) -> Alignment:
    """Find the symmetry of `model` that brings it nearest to `base`, from weights alone.

    `fetch` reads what is stored. Raises CompatibilityError where one of them has no symmetries that
    are known here, or they have other widths.
    """
    anatomy, other = read_anatomy(base), read_anatomy(model)
    if (anatomy.layers, _widths(anatomy)) != (other.layers, _widths(other)):
        problem = f"has other widths or layers than {base.name}: {_widths(other)}"
        raise CompatibilityError("an alignment", [Fault(model.name, problem)])
    pair = _Pair(base, model, anatomy, fetch)
    changed: dict[str, bool] = {}
    residual = pair.residual()
    changed["residual"] = not residual.is_identity
    layers: dict[str, LayerSymmetry] = {}
    squares = [0.0, 0.0, 0.0]
    for number, name in enumerate(anatomy.layers):
        layers[name], seen, matrices = pair.layer(name, residual)
        for kind, is_changed in seen.items():
            changed[kind] = changed.get(kind, False) or is_changed
        symmetry = joined(anatomy, residual, {name: layers[name]})
        for place, square in enumerate(_distance(name, symmetry, *matrices)):
            squares[place] += square
        if progress:
            progress(number + 1, len(anatomy.layers))
    final = None
    if anatomy.head is not None:
        final = pair.norm_factors(anatomy.final_norm, residual)
    whole = joined(anatomy, residual, layers, final)
    before, after = (math.sqrt(each / squares[2]) if squares[2] else 0.0 for each in squares[:2])
    names = tuple(kind for kind, is_changed in changed.items() if is_changed)
    return Alignment(whole, before, after, names)


def _widths(anatomy: Anatomy) -> tuple[int, ...]:
    sizes = (anatomy.hidden, anatomy.intermediate, anatomy.heads, anatomy.kv_heads)
    return (*sizes, anatomy.head_size)


@dataclass(frozen=True)
class _Pair:
    """The two models; matrices are float32 as they are stored, (out, in)."""

    base: Checkpoint
    model: Checkpoint
    anatomy: Anatomy
    fetch: Fetch

    def read(self, checkpoint: Checkpoint, name: str, rows: int | None = None) -> Any:
        """A tensor's values as float32 in its shape, or those of its first rows."""
        import torch

        source = find_source(checkpoint, name)
        assert source is not None  # the anatomy has been through all of them
        shape = source.shape if rows is None else (rows, *source.shape[1:])
        values = torch.empty(math.prod(shape), dtype=torch.float32)
        source.fill(self.fetch, 0, values)
        return values.numpy().reshape(shape)

    def residual(self) -> Monomial:
        """Which column of the model's embedding is which of the base's, and its sign."""
        rows = [each.tensors[self.anatomy.embedding].shape[0] for each in (self.base, self.model)]
        count = min(min(rows), MOST_TOKENS)
        ours, theirs = (
            self.read(each, self.anatomy.embedding, count) for each in (self.base, self.model)
        )
        found = match_rows(ours.T, theirs.T, signed=True)
        return Monomial(found.index, found.sign)

    def norm_factors(self, name: str, residual: Monomial) -> NDArray[np.float64]:
        """Factors of a norm's weight in the model's own order, (D,), that give the base's."""
        ours, theirs = (self.read(each, name) for each in (self.base, self.model))
        there = theirs[residual.index].astype(np.float64)
        with np.errstate(all="ignore"):
            ratio = np.where(there != 0, ours / np.where(there == 0, 1, there), 1.0)
        factors = np.ones(len(ratio))
        factors[residual.index] = np.abs(_snapped(ratio))
        return factors

    def layer(
        self, name: str, residual: Monomial
    ) -> tuple[LayerSymmetry, dict[str, bool], tuple[Matrices, Matrices]]:
        """The symmetry inside one layer, what of it is a change, and both models' matrices."""
        norms = [
            self.norm_factors(f"{name}.{each}.weight", residual)
            for each in ("input_layernorm", "post_attention_layernorm")
        ]
        ours = {part: self.read(self.base, f"{name}.{_place(part)}") for part in _PARTS}
        stored = {part: self.read(self.model, f"{name}.{_place(part)}") for part in _PARTS}
        theirs = dict(stored)
        for part, matrix in theirs.items():  # as they are when stream and norms are undone
            if part in ("o", "down"):
                theirs[part] = _rows(matrix, residual)
            else:
                factors = norms[part in ("gate", "up")]
                columns = 1.0 / (residual.scale * factors[residual.index])
                theirs[part] = matrix[:, residual.index] * columns.astype(np.float32)
        found = match_rows(ours["gate"], theirs["gate"])
        ratio = _ratios(ours["up"], theirs["up"][found.index])
        units = Monomial(found.index, _snapped(ratio))
        groups, heads = _heads(self.anatomy, ours, theirs)
        values = _values(self.anatomy, ours["v"], theirs["v"], groups)
        turns = _turns(self.anatomy, ours["k"], theirs["k"], groups)
        of_group = [place // self.anatomy.group for place in range(self.anatomy.heads)]
        symmetry = LayerSymmetry(
            units,
            by_blocks(heads, [turns[place][0] for place in of_group]),
            by_blocks(groups, [each[1] for each in turns]),
            by_blocks(groups, values),
            by_blocks(heads, [values[place] for place in of_group]),
            norms[0],
            norms[1],
        )
        changed = {
            "mlp": not units.is_identity,
            "vo": not all(each.is_identity for each in values),
            "qk": not all(each[1].is_identity for each in turns),
            "heads": bool((heads != np.arange(self.anatomy.heads)).any()),
            "norms": not all(bool((each == 1).all()) for each in norms),
        }
        return symmetry, changed, (ours, stored)


def _distance(
    name: str, symmetry: Symmetry, ours: Matrices, theirs: Matrices
) -> tuple[float, float, float]:
    """Sums of squares over a layer's matrices: of model − base, of aligned − base, of base."""
    sums = [0.0, 0.0, 0.0]
    for part, matrix in ours.items():
        change = symmetry.changes.get(f"{name}.{_place(part)}")
        for place, other in enumerate((theirs[part], _applied(theirs[part], change))):
            off = other - matrix
            sums[place] += float(np.vdot(off, off))
        sums[2] += float(np.vdot(matrix, matrix))
    return sums[0], sums[1], sums[2]


def _applied(matrix: Matrix, change: Change | None) -> Matrix:
    if change is None:
        return matrix
    if change.rows is not None:
        matrix = _rows(matrix, change.rows)
    if change.columns is not None:
        matrix = matrix[:, change.columns.index] * change.columns.scale.astype(np.float32)
    return matrix


def _place(part: str) -> str:
    room = "mlp" if part in ("gate", "up", "down") else "self_attn"
    return f"{room}.{part}_proj.weight"


def _rows(matrix: Matrix, monomial: Monomial) -> Matrix:
    return matrix[monomial.index] * monomial.scale.astype(np.float32)[:, None]


def _ratios(ours: Matrix, theirs: Matrix) -> NDArray[np.float64]:
    """The factors that bring rows nearest to others, row by row: ⟨ours, theirs⟩ / ‖theirs‖²."""
    product = np.einsum("ij,ij->i", ours, theirs, dtype=np.float64)
    square = np.einsum("ij,ij->i", theirs, theirs, dtype=np.float64)
    return np.divide(product, square, out=np.ones_like(product), where=square > 0)


def _snapped(ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors as powers of two where they are near one; a factor near 1 is training, no change."""
    size = np.abs(ratio)
    with np.errstate(all="ignore"):
        exponent = np.where(size > 0, np.log2(np.where(size > 0, size, 1.0)), 0.0)
    whole = np.rint(exponent)
    power = np.where(np.abs(exponent - whole) <= SNAP, np.exp2(whole), size)
    power = np.where((size == 0) | ~np.isfinite(power), 1.0, power)
    # Beyond a factor of two or so it is no scale that somebody chose but rows that have no match.
    power = np.where(np.abs(exponent) > 12, 1.0, power)
    return np.where(ratio < 0, -power, power)


def _heads(
    anatomy: Anatomy, ours: Mapping[str, Matrix], theirs: Mapping[str, Matrix]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which group of heads, and which head, of the model is which of the base.

    Groups by the spaces that their values span, heads by cosines of the products O V.
    """
    size, kv_heads, group = anatomy.head_size, anatomy.kv_heads, anatomy.group
    spans = [
        [np.linalg.qr(each["v"][h * size : (h + 1) * size].T)[0] for h in range(kv_heads)]
        for each in (ours, theirs)
    ]
    alike = np.array([[np.sum((a.T @ b) ** 2) for b in spans[1]] for a in spans[0]])
    groups = assigned(alike)
    heads: list[int] = []
    for place, there in enumerate(groups.tolist()):
        first = ours["v"][place * size : (place + 1) * size].astype(np.float64)
        second = theirs["v"][there * size : (there + 1) * size].astype(np.float64)
        cross = second @ first.T
        grams = first @ first.T, second @ second.T
        cosines = np.zeros((group, group))
        for i in range(group):
            for j in range(group):
                at, to = (place * group + i) * size, (there * group + j) * size
                a = ours["o"][:, at : at + size].astype(np.float64)
                b = theirs["o"][:, to : to + size].astype(np.float64)
                product = np.sum((a.T @ b) * cross.T)
                lengths = [np.sum((m.T @ m) * g) for m, g in ((a, grams[0]), (b, grams[1]))]
                cosines[i, j] = product / math.sqrt(max(lengths[0] * lengths[1], 1e-300))
        heads += (there * group + assigned(cosines)).tolist()
    return groups, np.array(heads, dtype=np.int64)


def _values(
    anatomy: Anatomy, ours: Matrix, theirs: Matrix, groups: NDArray[np.int64]
) -> list[Monomial]:
    """Within each group of heads: which value is which, with its sign and factor."""
    size, found = anatomy.head_size, list[Monomial]()
    for place, there in enumerate(groups.tolist()):
        first = ours[place * size : (place + 1) * size]
        second = theirs[there * size : (there + 1) * size]
        matched = match_rows(first, second, signed=True)
        ratio = _ratios(first, second[matched.index])
        found.append(Monomial(matched.index, _snapped(ratio)))
    return found


def _turns(
    anatomy: Anatomy, ours: Matrix, theirs: Matrix, groups: NDArray[np.int64]
) -> list[tuple[Monomial, Monomial]]:
    """Within each group of heads: by how many quarters pairs were turned, and their factors."""
    size, half = anatomy.head_size, anatomy.rotary_size // 2
    if anatomy.normed_heads:
        return [(identity(size), identity(size)) for _ in groups]
    found: list[tuple[Monomial, Monomial]] = []
    for place, there in enumerate(groups.tolist()):
        pairs: list[Any] = []
        for matrix, at in ((ours, place), (theirs, there)):
            head = matrix[at * size : (at + 1) * size].astype(np.float64)
            pairs.append(head[:half] + 1j * head[half : 2 * half])
        product = np.sum(pairs[0] * np.conj(pairs[1]), axis=1)
        square = np.sum(np.abs(pairs[1]) ** 2, axis=1)
        z = np.divide(product, square, out=np.ones_like(product), where=square > 0)
        quarters = (np.rint(np.angle(z) / (np.pi / 2)).astype(np.int64)) % 4
        found.append(turned(size, 2 * half, quarters, _snapped(np.abs(z))))
    return found
