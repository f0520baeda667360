"""Reduced sets: what items are chosen, and what is measured on candidates that took no part."""

import numpy as np
import pytest

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.held_back import HeldBack, held_back
from eval_ops.scores.matrices.matrix import ScoreMatrix, score_matrix
from eval_ops.scores.matrices.reduced import choose_items, fit, item_statistics, places_of
from tests.eval_ops.scores.answer_tables import answered, plain, scores_from

SKILLS = {f"m{n:02}": {"a": 0.1 + 0.028 * n, "b": 0.9 - 0.025 * n * (n % 3)} for n in range(30)}


@pytest.fixture(scope="module")
def matrix() -> ScoreMatrix:
    return score_matrix(answered(SKILLS, n=60, seed=1)).split("test")


def of_items(rows: dict[str, list[int]]) -> ScoreMatrix:
    return score_matrix({name: plain({"a": row}) for name, row in rows.items()}).split("test")


def test_difficulty_and_discrimination_by_hand() -> None:
    # Three items, four models: the first tells good from bad, the second is right for all, the
    # third tells them apart the other way round.
    rows = {"w": [1, 1, 0], "x": [1, 1, 0], "y": [0, 1, 1], "z": [0, 1, 1]}
    found = item_statistics(
        score_matrix({n: plain({"a": r}) for n, r in rows.items()}).split("test")
    )
    assert found.difficulty.tolist() == [0.5, 0.0, 0.5]
    assert found.discrimination.tolist() == pytest.approx([-1.0, 0.0, -1.0])
    rows = {"w": [1, 1, 1], "x": [1, 1, 0], "y": [0, 0, 1], "z": [0, 0, 0]}
    found = item_statistics(
        score_matrix({n: plain({"a": r}) for n, r in rows.items()}).split("test")
    )
    assert found.discrimination[0] == found.discrimination[1] > abs(found.discrimination[2])


def test_items_come_from_every_benchmark_and_every_difficulty(matrix: ScoreMatrix) -> None:
    reduced = choose_items(matrix, 12)
    assert len(reduced.items) == 12
    assert [key.benchmark for key in reduced.items].count("a") == 6
    assert reduced.of == 120
    difficulty = item_statistics(matrix).difficulty[places_of(matrix, reduced)]
    assert difficulty.min() < 0.4 < 0.6 < difficulty.max()
    assert choose_items(matrix, 12) == reduced
    assert choose_items(matrix, 12, "random", seed=1) != choose_items(matrix, 12, "random", seed=2)
    assert len(choose_items(matrix, 10_000).items) == 120


def test_all_items_estimate_exactly_and_fewer_nearly(matrix: ScoreMatrix) -> None:
    whole = fit(matrix, choose_items(matrix, len(matrix.items)))
    assert whole.means(matrix) == pytest.approx(matrix.means())
    few = fit(matrix, choose_items(matrix, 24))
    assert np.abs(few.means(matrix) - matrix.means()).mean() < 0.03


def test_what_is_held_back_takes_no_part(matrix: ScoreMatrix) -> None:
    names = matrix.models
    groups = {name: str(n // 3) for n, name in enumerate(names)}
    (all_items, tenth) = held_back(matrix, names[12], [120, 12], groups=groups)
    assert all_items.decisions == tenth.decisions == len(names) - 1
    assert all_items.error == pytest.approx(0)
    assert tenth.items == 12
    assert 0 < tenth.error < 0.15
    assert tenth.reversed == 0
    assert tenth.agreed + tenth.false + tenth.missed == tenth.decisions
    low, high = tenth.interval()
    assert 0 < low < tenth.agreement < high <= 1
    assert tenth.agreement > 0.6


def test_an_interval_of_agreement_is_never_without_a_width() -> None:
    low, high = HeldBack(10, 10.0, 0.0, 20, 20, 5, 0, 0, 0).interval()
    assert low < 0.9
    assert high == 1


def test_what_cannot_be_reduced_is_refused(matrix: ScoreMatrix) -> None:
    with pytest.raises(PairingError, match="it takes 6 models and an item a benchmark"):
        choose_items(matrix.of_models(matrix.models[:5]), 12)
    with pytest.raises(PairingError, match="1 items of 2 benchmarks"):
        choose_items(matrix, 1)
    reduced = choose_items(matrix, 12)
    scores = answered({"x": SKILLS["m00"]}, n=60)["x"]
    other = score_matrix({"x": scores_from(scores.samples, "e" * 64)})
    with pytest.raises(PairingError, match=r"the reduced set is of suite 'made' .* choose items"):
        places_of(other, reduced)
    part = matrix.of_items(range(3))
    with pytest.raises(PairingError, match="was not scored"):
        places_of(part, reduced)
