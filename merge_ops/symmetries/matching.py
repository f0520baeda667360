"""Which row of one matrix is which row of another: mutual best cosines, then an assignment.

Rows of siblings find each other with cosines near 1, so that both choose the other; the assignment,
which costs the cube of its size, is left for the few that do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK = 1024  # rows whose cosines with all others are held at a time
MOST_ASSIGNED = 4096  # rows that are assigned at once; of more the rest goes by best cosines


@dataclass(frozen=True)
class Matched:
    """Row i of the first matrix is row `index[i]` of the second; `sign` is that of the cosine.

    All arrays have shape (n,). `cosine` is the cosine itself.
    """

    index: NDArray[np.int64]
    sign: NDArray[np.float64]
    cosine: NDArray[np.float64]


def match_rows(first: Any, second: Any, signed: bool = False) -> Matched:
    """Match the rows of two matrices of one shape, (n, m), one to one, by their cosines.

    With `signed` a row may be the other's negative. scipy makes the assignment of what is left.
    """
    ours, theirs = _unit(first), _unit(second)
    count = len(ours)
    best = np.zeros(count, dtype=np.int64)
    column_best = np.full(count, -np.inf, dtype=np.float32)
    chosen = np.zeros(count, dtype=np.int64)
    for start in range(0, count, BLOCK):
        cosines = ours[start : start + BLOCK] @ theirs.T
        cosines = np.abs(cosines) if signed else cosines
        best[start : start + BLOCK] = cosines.argmax(axis=1)
        rows, highest = cosines.argmax(axis=0), cosines.max(axis=0)
        better = highest > column_best
        column_best[better] = highest[better]
        chosen[better] = rows[better] + start
    mutual = chosen[best] == np.arange(count)
    index = np.where(mutual, best, -1)
    _assign_rest(index, ours, theirs, signed)
    cosine = np.einsum("ij,ij->i", ours, theirs[index]).astype(np.float64)
    sign = np.where(cosine < 0, -1.0, 1.0) if signed else np.ones(count)
    return Matched(index, sign, cosine)


def match_among(some: Any, all_rows: Any, signed: bool = False) -> NDArray[np.int64]:
    """Match some rows, (n, m), one to one among more of another matrix, (N, m), N ≥ n.

    Returns for each the row that it is given, (n,). scipy makes the assignment.
    """
    linear_sum_assignment: Any = import_module("scipy.optimize").linear_sum_assignment

    cosines = _unit(some) @ _unit(all_rows).T
    cosines = np.abs(cosines) if signed else cosines
    return np.asarray(linear_sum_assignment(-cosines)[1], dtype=np.int64)


def assigned(alike: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each row the column that it is given so that what is alike, (n, n), sums highest.

    scipy makes the assignment.
    """
    linear_sum_assignment: Any = import_module("scipy.optimize").linear_sum_assignment

    return np.asarray(linear_sum_assignment(-alike)[1], dtype=np.int64)


def assigned_in_groups(alike: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Return such an assignment in which each group of rows is given a whole group of columns.

    Groups are of one size and lie one behind the other.
    """
    size = len(alike) // groups
    blocks = alike.reshape(groups, size, groups, size).swapaxes(1, 2)
    inside = [[assigned(block) for block in row] for row in blocks]
    places = np.arange(size)
    pairs = [zip(*rows, strict=True) for rows in zip(blocks, inside, strict=True)]
    sums = [[float(block[places, index].sum()) for block, index in row] for row in pairs]
    whole: list[int] = assigned(np.array(sums)).tolist()
    return np.concatenate([there * size + inside[at][there] for at, there in enumerate(whole)])


def _assign_rest(index: NDArray[np.int64], ours: Any, theirs: Any, signed: bool) -> None:
    """Give every row that has none a row that nobody has."""
    linear_sum_assignment: Any = import_module("scipy.optimize").linear_sum_assignment

    rows = np.flatnonzero(index < 0)
    free = np.setdiff1d(np.arange(len(index)), index[index >= 0])
    for start in range(0, len(rows), MOST_ASSIGNED):
        part = rows[start : start + MOST_ASSIGNED]
        cosines = ours[part] @ theirs[free].T
        cosines = np.abs(cosines) if signed else cosines
        _, columns = linear_sum_assignment(-cosines)
        index[part] = free[columns]
        free = np.delete(free, columns)


def _unit(matrix: Any) -> Any:
    """Rows of length 1; a row of zeros stays."""
    values = np.asarray(matrix, dtype=np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    return values / np.where(lengths > 0, lengths, 1.0)[:, None].astype(np.float32)
