"""Retention, interference and fronts, by hand and by their laws."""

from dataclasses import replace

import numpy as np
import pytest

from eval_ops.scores.matrices.matrix import score_matrix
from eval_ops.scores.matrices.retention import front, interference, mean_lengths, retention
from tests.eval_ops.scores.answer_tables import plain


def matrix_of(**rows: list[int]):
    scores = {name: plain({"a": row, "b": [1] * 20}) for name, row in rows.items()}
    return score_matrix(scores).split("test")


BASE, EXPERT = [0] * 30 + [1] * 10, [1] * 40
HALF = [1] * 15 + [0] * 15 + [1] * 10


def test_half_of_a_gain_is_half() -> None:
    matrix = matrix_of(base=BASE, expert=EXPERT, half=HALF)
    found = retention(matrix, "half", "expert", "base")
    assert found.benchmarks == ("a",)  # on b the expert gained nothing
    assert found.gain == 0.75
    assert found.share == 0.5
    assert found.low is not None
    assert found.high is not None
    assert 0.25 < found.low < 0.5 < found.high < 0.75
    assert (found.learned, found.lost) == (30, 15)


def test_the_expert_keeps_all_of_itself_and_the_base_nothing() -> None:
    matrix = matrix_of(base=BASE, expert=EXPERT)
    own, none = (retention(matrix, name, "expert", "base") for name in ("expert", "base"))
    assert (own.share, own.lost) == (1.0, 0)
    assert own.low is not None
    assert own.low < 0.95  # 30 items that are all kept are no proof of all
    assert (none.share, none.lost) == (0.0, 30)


def test_an_expert_without_a_gain_has_nothing_to_keep() -> None:
    found = retention(matrix_of(base=BASE, expert=BASE, x=HALF), "x", "expert", "base")
    assert found.benchmarks == ()
    assert found.share is found.low is found.high is None


def test_passages_are_drawn_whole() -> None:
    """Ten items a passage that fare alike: four passages tell less than forty items."""
    rows = {"base": BASE, "expert": EXPERT, "half": HALF}
    alone = matrix_of(**rows)
    passages = tuple(str(int(key.item) // 5) for key in alone.items)
    matrix = replace(alone, groups=passages)
    items, found = (retention(each, "half", "expert", "base") for each in (alone, matrix))
    assert (found.share, found.gain, found.lost) == (items.share, items.gain, items.lost)
    assert found.low is not None
    assert items.low is not None
    assert found.low < items.low - 0.05
    four = replace(alone, groups=tuple(str(int(key.item) // 10) for key in alone.items))
    # Of four passages three rose: the sign-flip test gives p = 2 / 2³, so nothing is shown.
    assert retention(four, "half", "expert", "base").benchmarks == ()


def test_interference_counts_what_everybody_knew() -> None:
    spoilt = [1] * 30 + [0] * 4 + [1] * 6
    matrix = matrix_of(base=BASE, one=EXPERT, other=BASE, merged=spoilt)
    found = interference(matrix, "merged", ["one", "other"], "base")
    assert (found.sure, found.broken, found.new) == (30, 4, 0)  # 10 of a and 20 of b
    assert found.low < 4 / 30 < found.high
    clean = interference(matrix, "one", ["one", "other"], "base")
    assert clean.broken == 0
    assert clean.high > 0
    assert interference(matrix, "one", ["other"], "base").new == 30


def test_a_front_is_what_nothing_beats() -> None:
    points = np.array([[1, 5], [2, 4], [2, 3], [3, 1], [1, 5], [np.nan, 9]], dtype=float)
    assert front(points).tolist() == [True, True, False, True, True, False]
    assert front(points, smaller=[1]).tolist() == [False, False, False, True, False, False]
    draw = np.random.default_rng(0)
    cloud = draw.random((60, 3))
    on = front(cloud)
    for place in range(60):
        beaten = ((cloud >= cloud[place]).all(axis=1) & (cloud > cloud[place]).any(axis=1)).any()
        assert on[place] == (not beaten)
    assert front(np.zeros((0, 2))).tolist() == []


def test_lengths_are_means_of_what_is_known() -> None:
    matrix = matrix_of(base=BASE)
    assert np.isnan(mean_lengths(matrix)).all()
    matrix.lengths[0, :2] = [4, 6]
    assert mean_lengths(matrix) == pytest.approx([5])
