"""Some items are asked alone, and more of them later without repeating."""

import random
from pathlib import Path

import pytest

from assets.work.suite_files import load_suite
from eval_ops.scores import Sample, SuiteScores, summarize
from eval_ops.suites import Evaluator, Suite
from eval_ops.suites.asked_items import AskedItems


def scores_of(places: dict[str, list[int]], turns: int = 1) -> SuiteScores:
    samples = tuple(
        Sample(name, ("validation", "test")[place % 2], f"{place}.{turn}", place % 3 == 0)
        for name, each in places.items()
        for turn in range(turns)
        for place in each
    )
    return SuiteScores("s", "d" * 64, summarize(samples, "acc", "1"), samples, {})


def test_what_was_asked_is_not_missing_any_more() -> None:
    asked, sizes = AskedItems(), {"a": 9, "b": 4}
    first = {"a": [4, 1, 1]}
    assert asked.missing(first, sizes) == {"a": [1, 4]}
    asked.add({"a": [1, 4]}, scores_of({"a": [1, 4]}))
    assert asked.missing(first, sizes) == {}
    more = {"a": [0, 1], "b": [3]}
    assert asked.missing(more, sizes) == {"a": [0], "b": [3]}
    asked.add({"a": [0], "b": [3]}, scores_of({"a": [0], "b": [3]}))
    assert asked.scores(more) == scores_of({"a": [0, 1], "b": [3]})
    assert asked.scores(first) == scores_of({"a": [1, 4]})


def test_an_item_of_two_turns_keeps_both() -> None:
    asked = AskedItems()
    asked.add({"a": [2, 5, 7]}, scores_of({"a": [2, 5, 7]}, turns=2))
    assert [sample.item for sample in asked.scores({"a": [5]}).samples] == ["5.0", "5.1"]


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ({"a": [9]}, "benchmark 'a' has 9 items; there is none at place 9"),
        ({"a": [0, -1]}, "there is none at place -1"),
        ({"c": [0]}, "the suite has no benchmark 'c', but a, b"),
        ({"a": []}, "no items are asked"),
        ({}, "no items are asked"),
    ],
)
def test_items_that_are_not_there(items: dict[str, list[int]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        AskedItems().missing(items, {"a": 9, "b": 4})


@pytest.fixture(scope="module")
def suite(suite_path: Path) -> Suite:
    return load_suite(suite_path)


def by_item(scores: SuiteScores) -> dict[tuple[str, str], Sample]:
    return {(sample.benchmark, sample.item): sample for sample in scores.samples}


def test_some_items_score_as_among_all_and_later_ones_do_not_repeat(
    suite: Suite, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(suite, threads=1)
    whole = by_item(evaluator.score(checkpoints[0]))
    totals: list[int] = []

    def count(done: int, total: int) -> None:
        if done == total:
            totals.append(total)

    first = {"herbs": [5, 2, 17]}
    second = {"herbs": [2, 3], "idioms": range(4)}
    some = evaluator.score(checkpoints[0], count, "d", first)
    more = evaluator.score(checkpoints[0], count, "d", second)
    assert totals == [3 * 4, 4 + 4 * 3]
    loads: list[Path] = []
    monkeypatch.setattr(evaluator, "_load", loads.append)
    evaluator.score(checkpoints[0], None, "d", {"herbs": [9]})
    assert loads == [], "the checkpoint of that digest is in memory"
    monkeypatch.undo()
    assert [sample.item for sample in some.samples] == ["herbs-002", "herbs-005", "herbs-017"]
    assert [score.n for score in some.scores] == [1, 2]
    assert len(more.samples) == 6
    for scores in (some, more):
        for key, sample in by_item(scores).items():
            assert (sample.split, sample.answer) == (whole[key].split, whole[key].answer)
            assert sample.loglikelihoods == pytest.approx(whole[key].loglikelihoods, abs=2e-5)
    again = Evaluator(suite, threads=1)
    assert again.score(checkpoints[0], items=first) == some, "the same questions, the same bits"
    assert by_item(evaluator.score(checkpoints[0])) == whole, "all are asked anew"


def test_requests_are_built_once_for_all_checkpoints(
    suite: Suite, checkpoints: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = Evaluator(suite, threads=1)
    evaluator.prepare()
    built: list[str] = []
    for tasks in evaluator._tasks.values():
        for name, task in tasks.items():
            make = task.fewshot_context
            monkeypatch.setattr(
                task,
                "fewshot_context",
                lambda *a, _make=make, _name=name, **k: built.append(_name) or _make(*a, **k),
            )
    first = evaluator.score(checkpoints[0])
    assert len(built) == 44
    second = evaluator.score(checkpoints[1])
    assert len(built) == 44
    assert evaluator.score(checkpoints[0]) == first != second
    evaluator.score(checkpoints[1], items={"herbs": [0]})
    assert len(built) == 45
    assert evaluator.score(checkpoints[1]) == second


def test_splits_of_a_built_in_task_are_those_of_all_its_items(
    tmp_path: Path, checkpoints: list[Path]
) -> None:
    draw = random.Random(3)
    for name, n in (("test", 13), ("dev", 5)):
        rows = [f"{i},{name} {draw.random()}?,1,2,3,4,{draw.choice('ABCD')}" for i in range(n)]
        header = ",Question,A,B,C,D,Answer"
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    path = tmp_path / "suite.yaml"
    path.write_text(
        "name: cmmlu\nseed: 4\nbenchmarks:\n  - {name: anatomy, task: cmmlu_anatomy, limit: 11,"
        " data_files: {test: test.csv, dev: dev.csv}}\n"
    )
    evaluator = Evaluator(load_suite(path), threads=1)
    whole = by_item(evaluator.score(checkpoints[0]))
    some = by_item(evaluator.score(checkpoints[0], items={"anatomy": [10, 3, 7, 0]}))
    assert [item for _, item in some] == ["0", "3", "7", "10"]
    assert {key: sample.split for key, sample in some.items()} == {
        key: whole[key].split for key in some
    }
    with pytest.raises(ValueError, match="has 11 items; there is none at place 11"):
        evaluator.score(checkpoints[0], items={"anatomy": [11]})
