from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_ops.errors import MetricError
from eval_ops.scores.scores import Sample
from eval_ops.suites.samples import assign_splits, read_samples
from eval_ops.suites.suites import Benchmark

GROUP = Benchmark(name="g", title="g", metric=None, limit=None, task="g")


def samples(n: int) -> list[Sample]:
    return [Sample("b", "", str(number), number % 2) for number in range(n)]


@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 9))
def test_splits_share_the_items_out_by_their_names(n: int, share: float, seed: int) -> None:
    divided = assign_splits(samples(n), share, seed)
    validation = [sample.item for sample in divided if sample.split == "validation"]
    assert len(validation) == min(max(round(share * n), 1), n - 1)
    assert [replace(sample, split="") for sample in divided] == samples(n)
    backwards = assign_splits(samples(n)[::-1], share, seed)
    assert sorted(s.item for s in backwards if s.split == "validation") == sorted(validation)


def test_splits_of_a_share_of_zero_or_a_single_item() -> None:
    assert {sample.split for sample in assign_splits(samples(9), 0, 0)} == {"test"}
    assert assign_splits(samples(1), 0.9, 0)[0].split == "test"
    first, second = (assign_splits(samples(40), 0.5, seed) for seed in (0, 1))
    assert first != second


def tasks_and_logs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two tasks as lm-eval makes them, and the log it would keep of two answers to each."""
    from eval_ops.suites import Item
    from eval_ops.suites.harness import build_tasks

    items = (Item("i", "test", "q", ("a", "b"), 1),)
    task = build_tasks(replace(GROUP, items=items))["items"]
    rows = [
        {
            "doc": {},
            "doc_id": n,
            "filter": "none",
            "metrics": ["acc", "acc_norm"],
            "filtered_resps": [(-1.0, False), (-2.0 + 2 * n, False)],
            "target": 1,
            "acc": float(n),
            "acc_norm": 1.0,
        }
        for n in range(2)
    ]
    return {"one": task, "two": task}, {"one": rows, "two": rows}


def test_a_group_pools_the_samples_of_its_tasks() -> None:
    tasks, logs = tasks_and_logs()
    found, metric, version = read_samples(GROUP, tasks, logs, 0, "here")
    assert metric == "acc"
    assert version == str(tasks["one"].VERSION)
    assert [(s.item, s.value, s.choice, s.answer) for s in found] == [
        ("one/0", 0.0, 0, 1),
        ("one/1", 1.0, 1, 1),
        ("two/0", 0.0, 0, 1),
        ("two/1", 1.0, 1, 1),
    ]
    assert sorted(s.split for s in found) == ["test", "test", "validation", "validation"]


def test_metrics_that_cannot_be_compared_item_by_item() -> None:
    from lm_eval.api.registry import get_aggregation

    tasks, logs = tasks_and_logs()
    task = tasks["one"]
    task._aggregation_list["acc"] = get_aggregation("f1")
    with pytest.raises(MetricError, match=r"metric 'acc' is no mean over items but 'f1_score'"):
        read_samples(GROUP, tasks, logs, 0, "here")
    task._higher_is_better["acc_norm"] = False
    with pytest.raises(MetricError, match=r"metric 'acc_norm' is better the lower it is"):
        read_samples(replace(GROUP, metric="acc_norm"), tasks, logs, 0, "here")
