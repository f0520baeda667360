"""Holm's correction and the optimism of the best of several."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_ops.errors import PairingError
from eval_ops.scores.multiplicity import holm, optimism
from eval_ops.scores.scores import SuiteScores

ScoresOf = Callable[..., SuiteScores]


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, times 3, 2, 1: 0.03, 0.04, and 0.03, which may not fall below 0.04.
    assert holm({"c": 0.03, "a": 0.01, "b": 0.02}) == {"c": 0.04, "a": 0.03, "b": 0.04}
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
    assert list(holm({"z": 0.5, "a": 0.1})) == ["z", "a"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    named = {str(number): p for number, p in enumerate(p_values)}
    adjusted = holm(named)
    for name, p in named.items():
        assert p <= adjusted[name] <= min(1.0, len(named) * p)
    order = sorted(named, key=lambda name: named[name])
    assert [adjusted[name] for name in order] == sorted(adjusted.values())


def test_the_best_of_equals_flatters_itself(scores_of: ScoresOf) -> None:
    """Twenty candidates of equal skill on 100 items: the best is lucky by theory's amount."""
    draw, biases = np.random.default_rng(2), []
    found = optimism([scores_of(a=([1, 0], [1]))])
    for _ in range(12):
        right = (draw.random((20, 100)) < 0.5).astype(float)
        candidates = [scores_of(a=(list(each), [1])) for each in right]
        found = optimism(candidates)
        biases.append(found.bias)
        assert found.candidates == 20
        assert found.apparent == max(each.mean("validation").value for each in candidates)
        assert optimism(candidates) == found
    # The expected maximum of 20 normal means of standard error ½ / √100 is 1.867 of them. The mean
    # of 12 estimates lies within four of its standard errors of that.
    error = float(np.std(biases, ddof=1)) / math.sqrt(12)
    assert abs(np.mean(biases) - 1.867 * 0.05) < 4 * error
    assert error < 0.02
    text = found.to_text()
    assert text.startswith("The best of 20 on validation items has ")
    assert text.endswith("Test items decide.")


def test_one_candidate_or_a_clear_best_flatters_nobody(scores_of: ScoresOf) -> None:
    good, bad = scores_of(a=([1] * 50, [1])), scores_of(a=([0] * 50, [1]))
    assert optimism([good]).bias == 0.0
    assert optimism([bad, good]).bias == 0.0
    assert optimism([bad, good]).apparent == 1.0


def test_optimism_of_other_items_is_refused(scores_of: ScoresOf) -> None:
    with pytest.raises(PairingError, match=r"'a' \(validation\): the items differ"):
        optimism([scores_of(a=([1, 0], [1])), scores_of(a=([1, 0, 1], [1]))])
