"""Which models go into a soup: worked examples by hand, and what holds for all."""

import math

import numpy as np
import pytest

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.matrix import ScoreMatrix, score_matrix
from eval_ops.scores.matrices.soups import (
    CategorySoup,
    category_soup,
    correlations,
    greedy_order,
    greedy_soup,
)
from tests.eval_ops.scores.answer_tables import plain


def share(right: int, of: int = 10) -> list[int]:
    return [1] * right + [0] * (of - right)


def matrix_of(**means: tuple[int, ...]) -> ScoreMatrix:
    names = "abcdef"
    return score_matrix(
        {
            model: plain({names[n]: share(right) for n, right in enumerate(rights)})
            for model, rights in means.items()
        }
    )


def test_a_greedy_soup_keeps_what_makes_it_no_worse() -> None:
    matrix = matrix_of(x=(8,), y=(6,), z=(7,), w=(6,))
    assert greedy_order(matrix) == ("x", "z", "w", "y")
    values = {("x", "z"): 0.8, ("x", "z", "w"): 0.7, ("x", "z", "y"): 0.9}
    soup = greedy_soup(matrix, values.__getitem__)
    assert soup.members == ("x", "z", "y")
    assert soup.value == 0.9
    assert [each.kept for each in soup.tried] == [True, True, False, True]
    assert [each.added for each in soup.tried] == ["x", "z", "w", "y"]
    assert greedy_soup(matrix, values.__getitem__, most=2).members == ("x", "z")
    assert greedy_soup(matrix, lambda _: math.nan).members == ("x",)


def test_a_soup_is_never_worse_than_its_best_model() -> None:
    matrix = matrix_of(x=(8,), y=(6,), z=(7,))
    draw = np.random.default_rng(0)
    for _ in range(50):
        soup = greedy_soup(matrix, lambda _: float(draw.random()))
        assert soup.value >= 0.8


def test_category_experts_by_hand() -> None:
    # a and b rise together over the models, c falls apart from both: correlations 1, 0, 0.
    matrix = matrix_of(p=(2, 3, 6), q=(5, 6, 9), r=(8, 9, 6), s=(5, 6, 3))
    soup = category_soup(matrix)
    expected = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert soup.correlations == pytest.approx(np.array(expected), abs=1e-12)
    assert soup.experts == {"a": "r", "b": "r", "c": "q"}
    assert soup.members == ("q", "r")
    grid = list(soup.weights())
    assert grid[0] == (0.5, 0.5)
    assert len(grid) == 9
    assert all(sum(weights) == pytest.approx(1) for weights in grid)
    assert min(min(weights) for weights in grid) == pytest.approx(0.1)
    assert len(set(grid)) == len(grid)


def test_models_that_rank_alike_everywhere_make_no_soup() -> None:
    soup = category_soup(matrix_of(p=(2, 3), q=(5, 6), r=(8, 9)))
    assert soup.experts == {}
    assert soup.members == ("r",)
    assert list(soup.weights()) == [(1.0,)]


def test_a_category_without_differences_correlates_with_none() -> None:
    found = correlations(np.array([[0.5, 0.1], [0.5, 0.9], [0.5, 0.3]]))
    assert found.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_three_members_have_the_whole_grid() -> None:
    soup = CategorySoup({}, ("x", "y", "z"), (), np.zeros((0, 0)))
    grid = list(soup.weights())
    assert grid[0] == (1 / 3,) * 3
    assert len(grid) == 1 + 36  # C(9, 2) ways to cut ten tenths in three


def test_too_little_to_correlate_is_refused() -> None:
    with pytest.raises(PairingError, match="has 2 benchmarks and scores of 2 models; category"):
        category_soup(matrix_of(p=(2, 3), q=(5, 6)))
