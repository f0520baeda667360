"""The tree of sequences against its definition, on small sequences that hypothesis draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_ops.running import prefix_tree
from eval_ops.running.prefix_tree import (
    Tokens,
    branches,
    common_lengths,
    row_of,
    rows_of,
    tree_size,
)

SEQUENCES = st.sets(
    st.lists(st.integers(0, 2), min_size=1, max_size=14).map(tuple), min_size=1, max_size=20
).map(sorted)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of eight tokens are large here, so trunks are made of what hypothesis draws."""
    monkeypatch.setattr(prefix_tree, "PIECE_TOKENS", 8)
    monkeypatch.setattr(prefix_tree, "ROW_TOKENS", 10)


def nodes_of(sequences: list[Tokens]) -> set[Tokens]:
    return {sequence[:n] for sequence in sequences for n in range(1, len(sequence) + 1)}


@given(SEQUENCES)
def test_a_tree_has_a_node_for_every_beginning(sequences: list[Tokens]) -> None:
    assert tree_size(sequences, common_lengths(sequences)) == len(nodes_of(sequences))


@given(SEQUENCES, st.integers(1, 5))
def test_rows_hold_every_sequence_once_and_every_token_sees_its_ancestors(
    sequences: list[Tokens], answer: int
) -> None:
    shared = common_lengths(sequences)
    reach = [max(0, len(sequence) - answer) for sequence in sequences]
    found: list[int] = []
    for branch in branches(sequences, shared, reach):
        trunk = sequences[branch.first][: branch.trunk]
        rows = rows_of(branch.pieces)
        assert sorted(piece for row in rows for piece in row) == sorted(branch.pieces)
        for pieces in rows:
            size = sum(piece.size for piece in pieces)
            assert size <= max(10, pieces[0].size)
            row = row_of(sequences, shared, pieces)
            assert len(row.tokens) == size
            ends = {int(path[-1]) for _, path in row.paths}
            for number, path in row.paths:
                assert (*trunk, *row.tokens[path].tolist()) == sequences[number]
                assert reach[number] >= branch.trunk
                assert row.depths[path].tolist() == list(
                    range(branch.trunk, len(sequences[number]))
                )
                for place, node in enumerate(path):
                    seen = np.flatnonzero(row.sees[node]).tolist()
                    assert seen == sorted(path[: place + 1].tolist())
                found.append(number)
            assert len(ends) == len(row.paths)
    assert sorted(found) == list(range(len(sequences)))


def test_long_beginnings_are_trunks_whether_shared_or_alone() -> None:
    examples = tuple(range(100, 140))
    sequences = sorted([*((*examples, n, n + 1) for n in range(6)), tuple(range(30))])
    shared = common_lengths(sequences)
    plans = list(branches(sequences, shared, [len(sequence) - 1 for sequence in sequences]))
    assert [(plan.trunk, [piece.size for piece in plan.pieces]) for plan in plans] == [
        (29, [1]),
        (40, [2] * 6),
    ]
    assert [len(row) for row in rows_of(plans[1].pieces)] == [5, 1]


def test_an_answer_that_is_longer_than_a_piece_is_one_all_the_same() -> None:
    (plan,) = branches([tuple(range(30))], [0], [3])
    assert (plan.trunk, [piece.size for piece in plan.pieces]) == (3, [27])


def test_a_word_that_all_begin_with_is_read_again() -> None:
    sequences = [(9, n, *range(20, 26)) for n in range(8)]
    (plan,) = branches(sequences, common_lengths(sequences), [7] * 8)
    assert (plan.trunk, len(plan.pieces)) == (0, 8)
