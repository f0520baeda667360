"""What trials answered, as a search's winner is chosen from it."""

import math

import pytest

from assets.work.scoring import trial_answers
from assets.work.scoring.trial_answers import TrialAnswers
from eval_ops.errors import PairingError
from eval_ops.scores import SuiteScores
from eval_ops.scores.scores import Sample, summarize


def scores(*samples: Sample) -> SuiteScores:
    names = dict.fromkeys(sample.benchmark for sample in samples)
    rows = [r for n in names for r in summarize([s for s in samples if s.benchmark == n], "m", "1")]
    return SuiteScores("s", "d", tuple(rows), samples)


def choice(benchmark: str, item: str, right: float, group: str = "") -> Sample:
    """An item of two choices; the right one, the first, is so many times as likely."""
    likely = (math.log(right) - 5.0, -5.0)
    chosen = 0 if right > 1 else 1
    return Sample(benchmark, "validation", item, float(chosen == 0), chosen, 0, likely, group)


def test_probabilities_and_passages_by_hand() -> None:
    """Benchmark a: odds 3 and 1/3 are 3/4 and 1/4. Benchmark b has no choices: its values."""
    found = scores(
        choice("a", "x", 3.0, "p"),
        choice("a", "y", 1 / 3, "p"),
        choice("a", "z", 3.0),
        Sample("b", "validation", "u", 0.5, text="written"),
        Sample("b", "validation", "v", 1.0, text="written"),
    )
    answers = TrialAnswers(("mean",), "probability")
    (value,) = answers.add(0, found)
    assert value == pytest.approx((1.75 / 3 + 0.75) / 2)
    told = answers.answers()
    assert told.strata.tolist() == [0, 0, 1, 1]
    assert sorted(told.shares[0].tolist()) == pytest.approx([0.125, 0.125, 1 / 6, 0.25])
    assert told.objectives()[0] == pytest.approx(value)
    plain = TrialAnswers(("mean",), "score")
    assert plain.add(0, found) == (pytest.approx((2 / 3 + 0.75) / 2),)


def test_a_metric_that_divides_by_length_counts_its_values() -> None:
    """The answer is not the likeliest choice: what decides is something else."""
    other = Sample("a", "validation", "x", 1.0, 0, 0, (-3.0, -2.0))
    assert TrialAnswers(("a",), "probability").add(0, scores(other)) == (1.0,)


def test_several_objectives_weigh_their_benchmarks() -> None:
    found = scores(choice("a", "x", 3.0), choice("b", "y", 1 / 3), choice("c", "z", 1 / 3))
    answers = TrialAnswers(("a", "b"), "score")
    assert answers.add(0, found) == (1.0, 0.0)
    assert answers.answers().shares.tolist() == [[0.5, 0.0]]


def test_without_validation_items() -> None:
    test = Sample("a", "test", "x", 1.0)
    with pytest.raises(PairingError, match="benchmark 'a' has no validation items"):
        TrialAnswers(("mean",), "probability").add(0, scores(test))


def test_of_many_trials_the_best_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_answers, "MOST_KEPT", 2)
    answers = TrialAnswers(("mean",), "probability")
    for number, odds in enumerate((3.0, 2.0, 4.0, 1.5)):
        answers.add(number, scores(choice("a", "x", odds)))
    assert answers.numbers == [0, 2]
