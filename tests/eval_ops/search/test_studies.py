"""Studies: winners, fronts, and their form in a store."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_ops.errors import ScoresError
from eval_ops.search import Study, Trial, pareto_front


def study(*values: tuple[float, ...] | None, objectives: tuple[str, ...] = ("mean",)) -> Study:
    trials = tuple(Trial(n, {"t": float(n)}, each) for n, each in enumerate(values))
    return Study("tpe", 0, objectives, trials, "trials")


def test_the_highest_wins_and_of_equals_the_first() -> None:
    best = study((0.2,), (0.7,), None, (0.7,)).best
    assert best is not None
    assert best.number == 1


def test_no_trial_with_values_no_winner() -> None:
    assert study(None, None).best is None
    assert study(None).front == ()


def test_a_front_of_two_objectives_by_hand() -> None:
    found = study((0.9, 0.1), (0.5, 0.5), (0.4, 0.4), (0.1, 0.95), None, objectives=("a", "b"))
    assert [trial.number for trial in found.front] == [0, 1, 3]
    assert found.best is not None
    assert found.best.number == 3  # means 0.5, 0.5, 0.525


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_laws_of_fronts(values: list[tuple[int, int]]) -> None:
    trials = [Trial(n, {}, (float(a), float(b))) for n, (a, b) in enumerate(values)]
    front = pareto_front(trials)
    assert pareto_front(front) == front
    for one, other in itertools.permutations(front, 2):
        assert one.values is not None
        assert other.values is not None
        assert one.values == other.values or any(
            a > b for a, b in zip(one.values, other.values, strict=True)
        )
    for trial in trials:
        assert trial.values is not None
        assert any(
            all(a >= b for a, b in zip(each.values or (), trial.values, strict=True))
            for each in front
        )


def test_a_study_is_read_as_it_was_written() -> None:
    trials = (
        Trial(0, {"weight[草药]": 0.5, "normalize": True}, (0.5, 0.25), "ab" * 32, None, 120),
        Trial(1, {"weight[草药]": 0.7, "normalize": False}, None, None, "answers with NaN"),
    )
    written = Study("tpe", 3, ("a", "b"), trials, "minutes", {"trials": 2})
    assert Study.from_json(written.to_json()) == written


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "cannot be read: JSONDecodeError"),
        ('{"format": 9}', "has format 9; this version of Ronghe reads format 1"),
        ('{"format": 1}', "cannot be read: KeyError"),
        ("[]", "cannot be read: TypeError"),
    ],
)
def test_what_is_no_study(text: str, told: str) -> None:
    with pytest.raises(ScoresError, match=told):
        Study.from_json(text)
