import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from eval_ops.errors import PairingError
from eval_ops.scores.leaderboard import (
    Entry,
    best_first,
    choose,
    coefficient_points,
    rows,
    to_json,
    to_markdown,
)
from eval_ops.scores.scores import SuiteScores

ScoresOf = Callable[..., SuiteScores]
SET = ("idioms", "herbs")


def right(validation: int, test: int, of: int = 40) -> tuple[list[int], list[int]]:
    return [1] * validation + [0] * (of - validation), [1] * test + [0] * (of - test)


@pytest.fixture
def entries(scores_of: ScoresOf) -> list[Entry]:
    def candidate(coefficient: str, validation: int, test: int) -> Entry:
        scores = scores_of(herb_class=right(validation, test), idiom_meaning=right(30, 30))
        return Entry("candidate", "c", scores, "ties", SET, coefficient, digest=coefficient)

    return [
        Entry("base", "tiny-base", scores_of(herb_class=right(10, 10), idiom_meaning=right(9, 9))),
        Entry("expert", "herbs", scores_of(herb_class=right(38, 38), idiom_meaning=right(9, 9))),
        Entry("expert", "idioms", scores_of(herb_class=right(9, 9), idiom_meaning=right(36, 36))),
        candidate("density=0.3_lambda=0.5", 30, 40),
        candidate("density=0.3_lambda=1.0", 36, 34),
        candidate("density=0.3_lambda=1.5", 36, 35),
        Entry(
            "average",
            "a",
            scores_of(herb_class=right(20, 20), idiom_meaning=right(20, 20)),
            "average",
            SET,
            "default",
        ),
    ]


def test_the_coefficient_is_chosen_on_validation_items_only(entries: list[Entry]) -> None:
    # lambda=0.5 has the best test items, 1.0 and 1.5 tie on validation items: the first id wins.
    chosen = choose(entries)
    assert [entry.coefficient for entry in chosen if entry.kind == "candidate"] == [
        "density=0.3_lambda=1.0"
    ]
    assert len(chosen) == 5
    assert choose(chosen) == chosen
    assert choose(reversed(entries))[1].coefficient == "density=0.3_lambda=1.0"


def test_recipes_and_sets_are_chosen_for_separately(entries: list[Entry]) -> None:
    other = [
        Entry("candidate", "c", entries[3].scores, "linear", SET, "x=1"),
        Entry("candidate", "c", entries[3].scores, "ties", (*SET, "times"), "x=1"),
    ]
    assert len(choose([*entries, *other])) == 7


def test_rows_report_test_items_best_first(entries: list[Entry]) -> None:
    table = rows(entries)
    assert [row.label for row in table] == [
        "ties herbs+idioms density=0.3_lambda=1.0",
        "herbs",
        "idioms",
        "average herbs+idioms",
        "tiny-base",
    ]
    merged, herbs, idioms, average, base = table
    assert merged.mean.value == (34 + 30) / 80
    assert merged.validation_mean == (36 + 30) / 80
    assert merged.benchmarks["herb_class"].n == 40
    assert merged.digest == "density=0.3_lambda=1.0"
    assert merged.vs_base
    assert merged.vs_base.verdict == "better"
    assert merged.vs_best_expert
    assert merged.vs_best_expert.difference == pytest.approx((64 - 47) / 80)
    assert merged.vs_average
    assert merged.vs_average.verdict == "better"
    assert herbs.vs_best_expert is None
    assert idioms.vs_best_expert is not None
    assert herbs.vs_average is average.vs_average is base.vs_base is None


def test_markdown(entries: list[Entry]) -> None:
    table = rows(entries)
    text = to_markdown(table)
    assert "| # | model | kind | herb_class | idiom_meaning | mean | vs base |" in text
    assert (
        "| 2 | herbs | expert | 95.0 (83.5–98.6) | 22.5 (12.3–37.5) | 58.8 (51.1–66.5) "
        "| better (+35.0) | – | – |"
    ) in text
    assert "(95 % interval; items: herb_class 40, idiom_meaning 40)" in text
    assert "at 95 % confidence" in text
    assert "3 more rows are not shown." in to_markdown(table, limit=2)
    assert to_markdown(()) == "No checkpoint has been scored yet.\n"


def test_markdown_is_whole_unless_it_is_cut(entries: list[Entry]) -> None:
    table = rows(entries)
    for limit in (None, 5, 6):
        lines = to_markdown(table, limit).splitlines()
        numbers = [line.split(" | ")[0] for line in lines if line[2:3].isdigit()]
        assert numbers == [f"| {number}" for number in range(1, 6)]
        assert "not shown" not in to_markdown(table, limit)
    assert "| 3 |" not in to_markdown(table, 2)


def test_markdown_of_a_single_model(scores_of: ScoresOf) -> None:
    table = rows([Entry("base", "a|b", scores_of(a=([], [1])))])
    assert to_markdown(table).splitlines()[:3] == [
        "| # | model | kind | a | mean | vs base | vs best expert | vs average |",
        "| ---: | --- | --- | ---: | ---: | --- | --- | --- |",
        r"| 1 | a\|b | base | 100.0 (20.7–100.0) | 100.0 (20.7–100.0) | – | – | – |",
    ]


def test_json(entries: list[Entry]) -> None:
    first = json.loads(to_json(rows(entries)))[0]
    assert first["kind"] == "candidate"
    assert first["mean"]["value"] == 0.8
    assert first["benchmarks"]["herb_class"]["value"] == 0.85
    assert first["vs_base"]["verdict"] == "better"


def test_coefficient_points_are_in_the_order_of_their_numbers(entries: list[Entry]) -> None:
    scores = entries[3].scores
    names = ["lambda=10.0", "lambda=0.5", "lambda=2.0", "lambda=-1.0"]
    points = coefficient_points(Entry("candidate", "c", scores, "ta", SET, name) for name in names)
    assert [point.coefficient for point in points] == [
        "lambda=-1.0",
        "lambda=0.5",
        "lambda=2.0",
        "lambda=10.0",
    ]
    assert points[0].validation == scores.mean("validation")
    assert points[0].test == scores.mean()


def test_without_validation_items_nothing_can_be_chosen(scores_of: ScoresOf) -> None:
    scores = scores_of(a=([], [1, 0]))
    pair = [Entry("candidate", "c", scores, "ties", SET, name) for name in ("x=1", "x=2")]
    with pytest.raises(PairingError, match=r"2 coefficients of 'ties' \(herbs\+idioms\) cannot be"):
        choose(pair)
    (row,) = rows(pair[:1])
    assert row.validation_mean is None


def test_different_suites_do_not_mix(scores_of: ScoresOf, entries: list[Entry]) -> None:
    stray = scores_of(suite_digest="other", herb_class=right(1, 1), idiom_meaning=right(1, 1))
    with pytest.raises(PairingError, match="score both on the same suite"):
        rows([*entries, Entry("expert", "stray", stray)])


def test_a_mean_of_nan_is_never_the_best(entries: list[Entry]) -> None:
    """NaN compares as neither more nor less: it would win wherever it comes first."""
    broken = next(each for each in entries if each.coefficient == "density=0.3_lambda=0.5")
    scores = tuple(replace(each, value=math.nan) for each in broken.scores.scores)
    nan = replace(broken, scores=replace(broken.scores, scores=scores))
    others = [each for each in entries if each is not broken]
    for order in ([nan, *others], [*others, nan]):
        (chosen,) = [each for each in choose(order) if each.kind == "candidate"]
        assert chosen.coefficient == "density=0.3_lambda=1.0"
    assert best_first(nan) == best_first(nan, "test") == math.inf
