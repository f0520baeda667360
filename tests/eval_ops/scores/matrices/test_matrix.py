"""The score matrix: what stands where, in one order."""

import random

import numpy as np
import pytest

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.matrix import ItemKey, score_matrix
from eval_ops.scores.scores import SuiteScores
from tests.eval_ops.scores.answer_tables import answered, plain, scores_from

SKILLS = {"herbs": {"a": 0.9, "b": 0.3}, "idioms": {"a": 0.3, "b": 0.8}}


def test_everything_of_an_answer_stands_where_its_model_and_item_are() -> None:
    scores = answered(SKILLS, n=6)
    matrix = score_matrix(scores)
    assert matrix.models == ("herbs", "idioms")
    assert matrix.items[0] == ItemKey("a", "test", "000")
    assert matrix.values.shape == (2, 24)
    assert matrix.loglikelihoods.shape == (2, 24, 4)
    for row, name in enumerate(matrix.models):
        for sample in scores[name].samples:
            key = ItemKey(sample.benchmark, sample.split, sample.item)
            column = matrix.items.index(key)
            assert matrix.values[row, column] == sample.value
            assert matrix.choices[row, column] == sample.choice
            assert matrix.answers[column] == sample.answer
            assert tuple(matrix.loglikelihoods[row, column]) == sample.loglikelihoods
    assert np.isnan(matrix.lengths).all()


def test_means_are_those_of_the_leaderboard() -> None:
    scores = {
        "one": plain({"a": [1, 0, 0, 0], "b": [1, 1]}),
        "two": plain({"a": [0] * 4, "b": [1, 0]}),
    }
    test = score_matrix(scores).split("test")
    assert test.means() == pytest.approx([scores[name].mean().value for name in test.models])
    assert test.benchmark_means().tolist() == [[0.25, 1.0], [0.0, 0.5]]
    assert test.weights().sum() == pytest.approx(1)


def test_the_order_of_the_items_as_scored_is_nothing() -> None:
    scores = answered(SKILLS, n=10)
    mixed: dict[str, SuiteScores] = {}
    for name, each in scores.items():
        samples = list(each.samples)
        random.Random(name).shuffle(samples)
        mixed[name] = scores_from(samples)
    one, other = score_matrix(scores), score_matrix(mixed)
    assert one.items == other.items
    assert (one.values == other.values).all()
    assert (one.loglikelihoods == other.loglikelihoods).all()


def test_samples_are_read_from_their_file() -> None:
    scores = answered(SKILLS, n=5)
    read = {
        name: SuiteScores.from_json(each.to_json(), each.samples_to_parquet)
        for name, each in scores.items()
    }
    assert (score_matrix(read).loglikelihoods == score_matrix(scores).loglikelihoods).all()


def test_parts() -> None:
    matrix = score_matrix(answered(SKILLS, n=5))
    assert score_matrix(answered(SKILLS, n=5), ["b"]).benchmarks == ("b",)
    turned = matrix.of_models(["idioms", "herbs"])
    assert (turned.values == matrix.values[::-1]).all()
    twice = score_matrix({**answered(SKILLS, n=5), "again": answered(SKILLS, n=5)["herbs"]})
    assert twice.without_twins().models == ("herbs", "idioms")


def test_what_does_not_belong_together_is_refused() -> None:
    one = plain({"a": [1, 0]})
    other = scores_from(one.samples, "e" * 64)
    with pytest.raises(PairingError, match="'y' and 'x' were scored on different suites"):
        score_matrix({"x": one, "y": other})
    with pytest.raises(PairingError, match=r"did not answer the same items .* '002' of a"):
        score_matrix({"x": one, "y": plain({"a": [1, 0, 1]})})
    with pytest.raises(PairingError, match="carry no samples"):
        score_matrix({"x": SuiteScores("s", "d", ())})
    with pytest.raises(PairingError, match="needs the scores of one model"):
        score_matrix({})
    matrix = score_matrix({"x": one})
    with pytest.raises(PairingError, match="'z' has no scores on suite 'made'; those that have: x"):
        matrix.model("z")
    only_test = scores_from([s for s in one.samples if s.split == "test"])
    with pytest.raises(PairingError, match="has no validation items"):
        score_matrix({"x": only_test}).split("validation")
