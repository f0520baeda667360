"""What of a suspect is a candidate's own? Regression in tiles, each with its directions made equal.

Fine-tunes of one base share a few strong directions: what any training on text does. A candidate's
own is the rest of its spectrum. In square tiles of matrices its task vector D = U Σ Vᵀ becomes the
instrument Z = U Vᵀ, in which all directions are of one length, and the weights solve
⟨Zᵢ, D_s − Σ wⱼ Dⱼ⟩ = 0 for every candidate i (instrumental variables). For a linear merge they are
the merge's weights. The interval follows from how much matrices differ from one another, and from
nothing that is assumed of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
from merge_ops.checkpoints.tensor_names import is_vocabulary
from merge_ops.progress import Progress
from merge_ops.provenance.task_regression import common_tensors
from merge_ops.stream.block_reader import read_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

SIDE = 256  # of a tile, at most: its decomposition takes a hundredth of a second
TILES = 2  # of a matrix in each direction, at most, spread over it
SMALLEST = 16  # of a side; smaller matrices have no directions to speak of
NONE = 1e-5  # of the largest singular value: below it a direction is rounding of float32
DEPENDENT = 1e-6


@dataclass(frozen=True)
class Tile:
    """A tile holds the equations of one square part of a tensor.

    `own[i, j]` is ⟨Zᵢ, Dⱼ⟩ / k, `with_suspect[i]` is ⟨Zᵢ, D_s⟩ / k where k is the rank of Zᵢ.
    """

    tensor: str
    own: Matrix
    with_suspect: Matrix


@dataclass(frozen=True)
class TileRegression:
    """A tile regression holds a weight and a standard error for each candidate.

    `by_tensor` has the weights of each tensor with tiles; `groups` counts what the error's spread
    was taken over. NaN stands for what cannot be told.
    """

    weights: tuple[float, ...]
    errors: tuple[float, ...]
    by_tensor: dict[str, tuple[float, ...]]
    groups: int


def regress_tiles(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    suspect: Checkpoint,
    progress: Progress | None = None,
) -> TileRegression:
    """Regress the suspect's task vector on those of the candidates, tile by tile.

    The models have the base's names. Raises CheckpointError where a file cannot be read.
    """
    common, _ = common_tensors(base, [*candidates, suspect])
    matrices = {
        name: each
        for name, each in common.items()
        if len(each[0].shape) == 2 and min(each[0].shape) >= SMALLEST and not is_vocabulary(name)
    }
    tiles: list[Tile] = []
    for number, (name, (origin, sources)) in enumerate(matrices.items()):
        for parts in _tiles(origin, sources):
            tile = _tile(name, parts)
            if tile is not None:
                tiles.append(tile)
        if progress:
            progress(number + 1, len(matrices))
    return solve_tiles(tiles, len(candidates))


def _tiles(origin: TensorSource, sources: Sequence[TensorSource]) -> Iterator[list[Matrix]]:
    """The task vectors of each tile, (rows, columns) each; whole rows are read for them."""
    height, width = origin.shape
    for top, rows in _spread(height):
        read = [
            read_values(each, top * width, rows * width).numpy().reshape(rows, width)
            for each in (origin, *sources)
        ]
        for left, columns in _spread(width):
            part = slice(left, left + columns)
            yield [(each[:, part] - read[0][:, part]).astype(np.float64) for each in read[1:]]


def _spread(length: int) -> list[tuple[int, int]]:
    """Where tiles begin along a side, and how long they are there."""
    if length <= SIDE:
        return [(0, length)]
    count = min(TILES, length // SIDE)
    step = (length - SIDE) // max(1, count - 1) if count > 1 else 0
    return [(place * step, SIDE) for place in range(count)]


def _tile(name: str, deltas: Sequence[Matrix]) -> Tile | None:
    """The equations of one tile; None where a candidate's task vector is zero or not finite."""
    size = len(deltas) - 1
    own, product = np.empty((size, size)), np.empty(size)
    for i in range(size):
        instrument = orthogonal_part(deltas[i])
        if instrument is None or not np.isfinite(deltas[-1]).all():
            return None
        rank = float(np.vdot(instrument, instrument))
        own[i] = [np.vdot(instrument, each) / rank for each in deltas[:-1]]
        product[i] = np.vdot(instrument, deltas[-1]) / rank
    return Tile(name, own, product)


def orthogonal_part(delta: Matrix) -> Matrix | None:
    """Return U Vᵀ of U Σ Vᵀ, over the directions that there are; None where there is none."""
    if not np.isfinite(delta).all() or not delta.any():
        return None
    left, values, right = np.linalg.svd(delta, full_matrices=False)
    kept = values > NONE * values[0]
    return left[:, kept] @ right[kept]


def solve_tiles(tiles: Sequence[Tile], candidates: int) -> TileRegression:
    """Solve the equations of all tiles together, and tell the error by leaving out each tensor.

    Every tile counts by the same measure: its equations are divided by its candidates' own lengths.
    """
    nothing = (math.nan,) * candidates
    if not tiles:
        return TileRegression(nothing, nothing, {}, 0)
    groups: dict[str, list[Tile]] = {}
    for each in tiles:
        groups.setdefault(each.tensor, []).append(each)
    sums = {name: _sum(members) for name, members in groups.items()}
    whole = _solved(_added(list(sums.values())))
    if whole is None:
        return TileRegression(nothing, nothing, {}, len(groups))
    errors = _jackknife(list(sums.values()), candidates)
    by_tensor: dict[str, tuple[float, ...]] = {}
    for name, equations in sums.items():
        found = _solved(equations)
        by_tensor[name] = tuple(found.tolist()) if found is not None else nothing
    return TileRegression(tuple(whole.tolist()), tuple(errors), by_tensor, len(groups))


Equations = tuple[Any, Any]


def _sum(tiles: Sequence[Tile]) -> Equations:
    parts: list[Equations] = []
    for each in tiles:
        lengths = np.diag(each.own)[:, None]
        parts.append((each.own / lengths, each.with_suspect / lengths[:, 0]))
    return _added(parts)


def _added(parts: Sequence[Equations]) -> Equations:
    return sum(each[0] for each in parts), sum(each[1] for each in parts)


def _solved(equations: Equations) -> Matrix | None:
    own, product = equations
    if not np.isfinite(own).all() or np.linalg.cond(own) > 1 / DEPENDENT:
        return None
    return np.linalg.solve(own, product)


def _jackknife(parts: Sequence[Equations], candidates: int) -> list[float]:
    """Standard errors by leaving out one group at a time (Quenouille, Tukey)."""
    count = len(parts)
    whole = _added(parts)
    found = [_solved((whole[0] - each[0], whole[1] - each[1])) for each in parts if count > 1]
    usable = [each for each in found if each is not None]
    if len(usable) < 2:
        return [math.inf] * candidates
    table = np.array(usable)
    spread = ((table - table.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt(spread * (len(usable) - 1) / len(usable)).tolist()
