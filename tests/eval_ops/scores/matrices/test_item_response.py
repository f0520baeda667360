"""Item response models: what made the answers is found again, and means are estimated from few."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from eval_ops.scores.matrices.held_back import held_back
from eval_ops.scores.matrices.item_response import (
    ItemResponses,
    estimated_means,
    fit_responses,
    most_informative,
)
from eval_ops.scores.matrices.matrix import ScoreMatrix, score_matrix
from eval_ops.scores.matrices.reduced import choose_items, places_of
from tests.eval_ops.scores.answer_tables import plain

MODELS, ITEMS = 60, 40
DRAW = np.random.default_rng(3)
ABILITY = DRAW.standard_normal(MODELS)
DIFFICULTY = np.linspace(-2, 2, ITEMS)
SLOPE = np.where(np.arange(ITEMS) % 2, 2.0, 0.7)


def chance(ability: Any, slope: Any, difficulty: Any) -> Any:
    return 1 / (1 + np.exp(-slope * (np.asarray(ability)[:, None] - difficulty)))


@pytest.fixture(scope="module")
def matrix() -> ScoreMatrix:
    right = DRAW.random((MODELS, ITEMS)) < chance(ABILITY, SLOPE, DIFFICULTY)
    rows = {f"m{n:02}": plain({"a": row.astype(int).tolist()}) for n, row in enumerate(right)}
    return score_matrix(rows).split("test")


@pytest.fixture(scope="module")
def found(matrix: ScoreMatrix) -> ItemResponses:
    return fit_responses(matrix)


def test_abilities_difficulties_and_slopes_are_found_again(found: ItemResponses) -> None:
    assert np.corrcoef(found.ability[:, 0], ABILITY)[0, 1] > 0.9
    assert np.corrcoef(found.difficulty, DIFFICULTY)[0, 1] > 0.9
    assert found.slope[SLOPE == 2.0].mean() > 1.3 * found.slope[SLOPE == 0.7].mean()


def test_an_ability_is_the_most_likely_one(matrix: ScoreMatrix, found: ItemResponses) -> None:
    asked = np.arange(0, ITEMS, 3)
    rest = np.setdiff1d(np.arange(ITEMS), asked)
    means = estimated_means(found, matrix, asked)[:, 0]
    for row in (0, 17, 42):
        answers = matrix.values[row, asked]

        def unlikely(ability: float, answers: Any = answers) -> float:
            p = chance([ability], found.slope[asked], found.difficulty[asked])[0]
            told = answers * np.log(p) + (1 - answers) * np.log(1 - p)
            return float(ability**2 / 2 - told.sum())

        ability = float(minimize_scalar(unlikely, bounds=(-5, 5), method="bounded").x)
        expected = answers.sum()
        expected += chance([ability], found.slope[rest], found.difficulty[rest]).sum()
        assert means[row] == pytest.approx(expected / ITEMS, abs=1e-4)


def test_all_items_are_exact_and_a_quarter_is_near(
    matrix: ScoreMatrix, found: ItemResponses
) -> None:
    whole = estimated_means(found, matrix, np.arange(ITEMS))
    assert whole == pytest.approx(matrix.benchmark_means())
    few = most_informative(found, np.arange(ITEMS), 0, 10)
    assert len(set(few)) == 10
    assert SLOPE[few].mean() > 1.5
    estimated = estimated_means(found, matrix, np.array(sorted(few)))
    assert np.sqrt(np.square(estimated - matrix.benchmark_means()).mean()) < 0.08


def test_it_is_held_back_as_other_choices_are(matrix: ScoreMatrix) -> None:
    few = matrix.of_models(matrix.models[:20])
    reduced = choose_items(few, 10, "item response")
    assert len(places_of(few, reduced)) == 10
    (whole, part) = held_back(few, few.models[3], [ITEMS, 10], "item response")
    assert whole.error == pytest.approx(0)
    assert whole.agreed == whole.decisions  # the standard error is that of all items then
    assert 0 < part.error < 0.15
