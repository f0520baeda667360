"""Plans how many token sequences that begin alike go through a model without reading twice.

Sequences are sorted, so that those with a common beginning lie side by side, and what two
neighbours share is one number. A *piece* is a run of neighbours that is read as one tree: every
token stands once, after its own ancestors only. What is too long for that, such as the examples
before every question of a few-shot task, becomes a *trunk*: its keys and values are computed once
and the pieces under it continue from them. Only numbers are made here; shared_prompts.py runs them.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Tokens = tuple[int, ...]

PIECE_TOKENS = 512
"""The most tokens of a piece, but for answers that are longer: its mask grows by squares."""
ROW_TOKENS = 128
"""Small pieces are laid side by side in rows of about so many tokens."""
OPEN_ROWS = 64
"""Rows with room that are tried for a piece, so that many pieces take linear time."""
WORTH = 8
"""Sequences are read as a tree where that saves an eighth of its tokens at least."""


class Piece(NamedTuple):
    """Sequences `first` to `end` (of a sorted list) from token `start` on, `size` tokens in all."""

    first: int
    end: int
    start: int
    size: int


class Branch(NamedTuple):
    """Pieces that continue the first `trunk` tokens of sequence `first`; 0 where they begin."""

    first: int
    trunk: int
    pieces: list[Piece]


class Row(NamedTuple):
    """The nodes of some pieces side by side.

    `tokens` and `depths` (positions in their sequences) are [nodes]; `sees` is [nodes, nodes],
    whether a node is another's ancestor or itself. `paths` holds, for each sequence of the
    pieces, its number and the places of its nodes, from the trunk to its end.
    """

    tokens: np.ndarray
    depths: np.ndarray
    sees: np.ndarray
    paths: list[tuple[int, np.ndarray]]


def common_lengths(sequences: Sequence[Tokens]) -> list[int]:
    """Return how many tokens each of the sorted sequences shares with the one before it."""
    shared = [0]
    for before, after in pairwise(sequences):
        most = min(len(before), len(after))
        place = 0
        while place < most and before[place] == after[place]:
            place += 1
        shared.append(place)
    return shared


def tree_size(sequences: Sequence[Tokens], shared: Sequence[int]) -> int:
    """Return how many tokens are left when what sequences share is counted once."""
    return sum(map(len, sequences)) - sum(shared)


def branches(
    sequences: Sequence[Tokens], shared: Sequence[int], reach: Sequence[int]
) -> Iterator[Branch]:
    """Yield all sequences as pieces; no trunk is longer than the `reach` of a sequence under it.

    `sequences` are sorted and all different; `shared` comes from `common_lengths`.
    """
    waiting = [(0, len(sequences), 0)]
    while waiting:
        first, end, trunk = waiting.pop()
        pieces: list[Piece] = []
        runs = _runs(shared, first, end, trunk)
        while runs:
            a, b = runs.pop()
            size = len(sequences[a]) - trunk
            size += sum(len(sequences[i]) - shared[i] for i in range(a + 1, b))
            common = min(shared[a + 1 : b], default=len(sequences[a]))
            saved = (common - trunk) * (len(_runs(shared, a, b, common)) - 1)
            reached = min(common, *(reach[i] for i in range(a, b)))
            alone = b - a == 1
            worth = alone or WORTH * saved >= size
            if (worth and size <= PIECE_TOKENS) or (alone and reached <= trunk):
                pieces.append(Piece(a, b, trunk, size))
            elif worth and reached > trunk:
                waiting.append((a, b, reached))
            else:
                runs += _runs(shared, a, b, common)
        if pieces:
            yield Branch(first, trunk, pieces)


def _runs(shared: Sequence[int], first: int, end: int, depth: int) -> list[tuple[int, int]]:
    """Divide sequences `first` to `end` where neighbours share no more than `depth` tokens."""
    cuts = [first, *(i for i in range(first + 1, end) if shared[i] <= depth), end]
    return list(pairwise(cuts))


def rows_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Lay pieces side by side in rows of `ROW_TOKENS`, or as long as the largest; longest first."""
    ordered = sorted(pieces, key=lambda piece: (-piece.size, piece.first))
    rows: list[list[Piece]] = []
    room: dict[int, int] = {}  # of the rows that something may still fit into
    for piece in ordered:
        place = next((row for row, left in room.items() if left >= piece.size), None)
        if place is None:
            place = len(rows)
            rows.append([])
            room[place] = max(ROW_TOKENS, piece.size)
            if len(room) > OPEN_ROWS:
                del room[next(iter(room))]
        rows[place].append(piece)
        room[place] -= piece.size
        if room[place] < ordered[-1].size:
            del room[place]
    return sorted(rows, key=lambda row: -sum(piece.size for piece in row))


def row_of(sequences: Sequence[Tokens], shared: Sequence[int], pieces: Sequence[Piece]) -> Row:
    """Return the nodes of the pieces of one row."""
    size = sum(piece.size for piece in pieces)
    tokens, depths = np.zeros(size, np.int64), np.zeros(size, np.int64)
    sees = np.zeros((size, size), bool)
    paths: list[tuple[int, np.ndarray]] = []
    used = 0
    for first, end, start, _ in pieces:
        path = np.zeros(0, np.int64)
        for number in range(first, end):
            sequence = sequences[number]
            kept = start if number == first else max(shared[number], start)
            fresh = np.arange(used, used + len(sequence) - kept)
            path = np.concatenate([path[: kept - start], fresh])
            tokens[fresh] = sequence[kept:]
            depths[fresh] = np.arange(kept, len(sequence))
            sees[np.ix_(fresh, path[: kept - start])] = True
            sees[np.ix_(fresh, fresh)] = np.tri(len(fresh), dtype=bool)
            paths.append((number, path))
            used += len(fresh)
    return Row(tokens, depths, sees, paths)
