"""Screening by a reduced set: estimates, their measured error, and who is left."""

import numpy as np
import pytest

from eval_ops.errors import GateError, PairingError
from eval_ops.scores.gates import parse_gate
from eval_ops.scores.matrices.matrix import ItemKey, ScoreMatrix
from eval_ops.scores.matrices.screening import screen_of


def matrix_of(models: int, items: int = 120, seed: int = 3) -> ScoreMatrix:
    """Models of rising ability on items of all difficulties, in two benchmarks."""
    draw = np.random.default_rng(seed)
    ability, difficulty = np.linspace(-2, 2, models), draw.normal(size=items)
    chance = 1 / (1 + np.exp(-(ability[:, None] - difficulty)))
    values = (draw.random((models, items)) < chance).astype(float)
    keys = tuple(ItemKey("ab"[n % 2], "validation", f"{n:03}") for n in range(items))
    none = np.full((models, items), -1)
    return ScoreMatrix(
        "s", "d", tuple(f"m{n:02}" for n in range(models)), keys, values, none, none[0],
        np.zeros((models, items, 0)), np.full((models, items), np.nan), ("",) * items,
    )  # fmt: skip


def test_estimates_of_new_models_are_near_within_the_measured_error() -> None:
    known, new = matrix_of(24), matrix_of(24, seed=3)
    screen = screen_of(known.of_models(known.models[::2]), 0.2)
    assert len(screen.items) == 24
    assert screen.models == 12
    at = {key: place for place, key in enumerate(new.items)}
    errors = [
        screen.estimate({key: float(new.values[row, at[key]]) for key in screen.items})
        - float(new.means()[row])
        for row in range(1, 24, 2)
    ]
    assert 0 < screen.error < 0.12
    assert float(np.sqrt(np.mean(np.square(errors)))) < 2 * screen.error


def test_who_is_behind_by_more_than_both_err() -> None:
    screen = screen_of(matrix_of(16), 0.2)
    reach = 1.96 * screen.error  # of three candidates: 1 - 0.05 / 2
    told = {"a": 0.9, "b": 0.9 - 0.99 * reach, "c": 0.9 - 1.01 * reach}
    assert [*screen.behind(told)] == ["c"]
    assert screen.behind({"a": 0.1}) == {}
    assert screen.behind({}) == {}


def test_too_few_known_models_are_refused() -> None:
    with pytest.raises(PairingError, match=r"11 models that answer differently are known, .* 12 "):
        screen_of(matrix_of(11), 0.1)


def test_a_reduced_set_goes_with_early_stopping() -> None:
    assert parse_gate({"early_stopping": True, "reduced_set": 0.1}).reduced_set == 0.1
    with pytest.raises(GateError, match="reduced_set goes with `early_stopping: true`"):
        parse_gate({"reduced_set": 0.1})
    with pytest.raises(GateError, match="reduced_set"):
        parse_gate({"early_stopping": True, "reduced_set": 1.5})
    with pytest.raises(GateError, match="Did you mean 'early_stopping'"):
        parse_gate({"early_stoping": True})
