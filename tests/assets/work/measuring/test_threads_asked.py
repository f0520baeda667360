"""Children that run models are told how many threads: without a wish, the cores of this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from assets.work.measuring import asking_child, model_child
from assets.work.measuring.grading import asker
from assets.work.measuring.model_child import Base, Running, ask_model
from eval_ops.suites import Judge


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of each request; a container of three cores."""
    threads: list[int] = []

    def ask(module: str, folder: Path, request: Mapping[str, Any], *_: object, **__: object) -> Any:
        threads.append(request["threads"])
        return {"says": "[[3]]"}

    monkeypatch.setattr("merge_ops.stream.usable_cores", lambda: 3)
    monkeypatch.setattr(model_child, "ask_child", ask)
    monkeypatch.setattr(asking_child, "ask_child", ask)
    return threads


def test_a_model_runs_on_the_cores_that_the_container_has(asked: list[int]) -> None:
    base = Base(Path("base"), "base", "d" * 64)
    for threads in (0, 2):
        ask_model("a.module", base, {}, Running(threads=threads), "measures", "Stop")
    assert asked == [3, 2]


def test_a_judge_grades_on_the_cores_that_the_container_has(asked: list[int]) -> None:
    judge = Judge("folder", digest="d" * 64)
    for threads in (0, 2):
        asker(judge, "cpu", threads)([{"role": "user", "content": "one"}])
    assert asked == [3, 2]
