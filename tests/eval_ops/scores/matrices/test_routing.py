"""What routing would buy: the laws that hold for every matrix, and a worked example by hand."""

from dataclasses import replace

import numpy as np
import pytest

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.matrix import ItemKey, ScoreMatrix, score_matrix
from eval_ops.scores.matrices.pools import (
    Cascade,
    linear_weights,
    log_weights,
    margins,
    pooled,
    probabilities,
)
from eval_ops.scores.matrices.routing import (
    RoutingTable,
    chance_oracle,
    gap_recovered,
    pair_counts,
    routing_table,
)
from eval_ops.scores.matrices.text_features import text_features
from eval_ops.scores.matrices.text_routers import logistic, neighbours, routed
from tests.eval_ops.scores.answer_tables import answered, plain

SKILLS = {
    "base": {"herbs": 0.3, "idioms": 0.3},
    "herbs": {"herbs": 0.95, "idioms": 0.3},
    "idioms": {"herbs": 0.3, "idioms": 0.95},
    "merged": {"herbs": 0.7, "idioms": 0.7},
}
WORDS = {"herbs": "问：中药{}是哪类药？答：", "idioms": "哪个成语的意思是{}？"}


@pytest.fixture(scope="module")
def matrix() -> ScoreMatrix:
    return score_matrix(answered(SKILLS, n=40, seed=3))


def texts_of(matrix: ScoreMatrix) -> dict[ItemKey, str]:
    return {key: WORDS[key.benchmark].format(key.item) for key in matrix.items}


def table_of(matrix: ScoreMatrix, texts: bool = True) -> RoutingTable:
    return routing_table(matrix, texts_of(matrix) if texts else None)


def values(table: RoutingTable) -> dict[str, float]:
    return {row.name: row.value for row in table.rows}


def numbers(table: RoutingTable) -> list[tuple[object, ...]]:
    return [
        (row.name, row.value, row.low, row.high, row.difference, row.calls) for row in table.rows
    ]


def test_specialists_are_worth_a_router_and_the_table_says_so(matrix: ScoreMatrix) -> None:
    table = table_of(matrix)
    found = values(table)
    assert table.best == "merged"
    assert found["benchmark router"] > found["best single"] + 0.1
    assert found["neighbours by text"] > found["best single"] + 0.1
    assert found["logistic regression on text"] > found["best single"] + 0.1
    assert table.advice.startswith("Routing pays: ")
    router = next(row for row in table.rows if row.name == "benchmark router")
    assert router.verdict == "better"
    assert router.detail == "herbs: herbs, idioms: idioms"
    assert router.models == 2
    assert not table.left_out
    assert sum(row.detail == "chosen on validation" for row in table.rows) == 1


def test_one_model_is_every_router() -> None:
    one = score_matrix({"only": answered(SKILLS, n=20)["merged"]})
    table = routing_table(one, texts_of(one))
    assert len({round(value, 12) for value in values(table).values()}) == 1
    assert {row.models for row in table.rows} == {1}
    assert {row.calls for row in table.rows} == {1.0}
    assert table.gap == pytest.approx(0)
    assert all(row.low < row.value < row.high for row in table.rows)
    assert table.chance_gap == pytest.approx(0)
    assert table.advice.startswith("Keep one model, only: ")


@pytest.mark.parametrize("seed", range(2))
def test_no_router_that_picks_a_model_is_above_the_oracle(seed: int) -> None:
    found = values(table_of(score_matrix(answered(SKILLS, n=25, seed=seed))))
    picking = ("best single", "benchmark router", "neighbours by text",
               "logistic regression on text", "confidence cascade")  # fmt: skip
    assert all(found[name] <= found["oracle"] for name in picking)


def test_a_model_twice_changes_nothing(matrix: ScoreMatrix) -> None:
    scores = answered(SKILLS, n=40, seed=3)
    twice = score_matrix({**scores, "again": scores["merged"], "once more": scores["herbs"]})
    assert numbers(table_of(twice)) == numbers(table_of(matrix))


def test_the_order_of_items_changes_nothing(matrix: ScoreMatrix) -> None:
    from tests.eval_ops.scores.answer_tables import scores_from

    turned = {
        name: scores_from(list(reversed(each.samples)))
        for name, each in answered(SKILLS, n=40, seed=3).items()
    }
    assert numbers(table_of(score_matrix(turned))) == numbers(table_of(matrix))


def test_texts_that_say_nothing_give_no_more_than_the_best_single(matrix: ScoreMatrix) -> None:
    table = routing_table(matrix, dict.fromkeys(matrix.items, "always the same"))
    found = values(table)
    assert found["neighbours by text"] == pytest.approx(found["best single"], abs=0.15)
    assert found["logistic regression on text"] == pytest.approx(found["best single"])


def test_without_texts_or_likelihoods_it_says_what_is_left_out() -> None:
    scores = plain({"a": [1, 0, 1, 1]})
    table = routing_table(score_matrix({"x": scores}))
    assert table.left_out == {
        "routers by text": "the questions of a are not in the suite's own items",
        "pools": "answers to a follow from no log-likelihoods",
    }
    assert [row.name for row in table.rows] == [
        "best single", "benchmark router", "confidence cascade", "oracle",
    ]  # fmt: skip
    only_test = score_matrix({"x": scores}).split("test")
    with pytest.raises(PairingError, match="has no validation items"):
        routing_table(only_test)


def test_the_oracle_and_its_reference_by_hand() -> None:
    # Two models, each right on half of the items. Complements: the oracle is 1. Independent ones
    # would be right together on 3/4 of them.
    half = [1.0, 0.0] * 50
    other = [0.0, 1.0] * 50
    matrix = score_matrix({"x": plain({"a": half}), "y": plain({"a": other})})
    assert values(routing_table(matrix))["oracle"] == 1.0
    assert chance_oracle(matrix.split("test")) == pytest.approx(0.75, abs=0.01)
    assert pair_counts(matrix.split("test")).tolist() == [[0, 50], [50, 0]]


def test_routing_at_random_is_the_diagonal() -> None:
    draw = np.random.default_rng(0)
    weak = (draw.random(400) < 0.4).astype(float)
    strong = (draw.random(400) < 0.8).astype(float)
    at_random = [gap_recovered(weak, strong, draw.random(400)) for _ in range(100)]
    assert np.mean(at_random) == pytest.approx(0.5, abs=0.02)
    assert gap_recovered(weak, strong, strong - weak) > 0.75
    assert gap_recovered(weak, strong, weak - strong) < 0.25
    # By hand: one item of two gains, and it comes first: areas ½·½ + ½·1.
    assert gap_recovered(np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([2, 1])) == 0.75


def test_a_router_trained_on_shuffled_labels_recovers_half_the_gap(matrix: ScoreMatrix) -> None:
    draw = np.random.default_rng(1)
    known, test = matrix.split("validation"), matrix.split("test")
    weak, strong = test.model("base"), test.model("herbs")
    features = [
        text_features([texts_of(matrix)[k] + str(draw.random()) for k in part.items])
        for part in (known, test)
    ]
    found = []
    for _ in range(25):
        shuffled = draw.permuted(known.values, axis=1)
        expected = neighbours(features[0], shuffled)(features[1])
        preference = expected[strong] - expected[weak] + 1e-6 * draw.random(len(test.items))
        found.append(gap_recovered(test.values[weak], test.values[strong], preference))
    assert np.mean(found) == pytest.approx(0.5, abs=0.1)


def test_pools_find_the_model_that_knows(matrix: ScoreMatrix) -> None:
    known = matrix.of_models(["herbs", "base"]).split("validation")
    part = known.of_items(known.where("herbs"))
    given = probabilities(part)
    assert given.sum(axis=2) == pytest.approx(np.ones(given.shape[:2]))
    linear, logarithmic = (fit(given, part.answers) for fit in (linear_weights, log_weights))
    assert linear.sum() == pytest.approx(1)
    assert linear[0] > linear[1]
    assert logarithmic[0] > logarithmic[1]
    # Both losses are convex and fitted: no small step makes them smaller.
    at = np.arange(len(part.answers))

    def linear_loss(w: np.ndarray) -> float:
        return -np.log(np.tensordot(w, given, axes=1)[at, part.answers]).mean()

    assert all(
        linear_loss(linear) <= linear_loss(np.array([w, 1 - w])) + 1e-4
        for w in np.linspace(0.01, 0.99, 50)
    )
    one = given[:1]
    assert (pooled(one, np.ones(1), log=True) == part.choices[0]).all()


def test_a_cascade_asks_the_second_model_where_the_first_is_unsure(matrix: ScoreMatrix) -> None:
    test = matrix.split("test")
    never, always = Cascade(0, 1, -np.inf), Cascade(0, 1, np.inf)
    assert (never.answers(test)[0] == test.values[0]).all()
    assert never.answers(test)[1] == 0
    assert (always.answers(test)[0] == test.values[1]).all()
    assert always.answers(test)[1] == 1
    assert (margins(test) >= 0).all()
    bare = replace(test, loglikelihoods=np.zeros((*test.values.shape, 0)))
    assert np.isinf(margins(bare)).all()


def test_texts_become_rows_of_length_one_that_know_chinese() -> None:
    rows = text_features(["黄芪是哪类药", "黄芪是哪类药", "当归是哪类药", "three times four", ""])
    assert np.linalg.norm(rows[:4], axis=1) == pytest.approx(np.ones(4))
    assert (rows[0] == rows[1]).all()
    assert rows[0] @ rows[2] > 0.4 > rows[0] @ rows[3]
    assert not rows[4].any()
    assert text_features(["\ud800"]).any()


def test_routers_by_text_prefer_the_first_of_equals() -> None:
    assert routed(np.array([[0.5, 0.9], [0.5, 0.1]]), [1, 0]).tolist() == [1, 0]
    texts = text_features(["aaa", "bbb", "aab", "bba"] * 5)
    right = np.array([[1, 0, 1, 0] * 5, [0, 1, 0, 1] * 5], dtype=float)
    for make in (neighbours, logistic):
        expected = make(texts, right)(text_features(["aaaa", "bbbb"]))
        assert expected[0, 0] > expected[1, 0]
        assert expected[1, 1] > expected[0, 1]
