"""Scores from elsewhere: what a CSV may hold, and every fault in one."""

import json

import pytest

from eval_ops.errors import ImportedScoresError
from eval_ops.scores.imported import imported_to_json, read_imported
from eval_ops.scores.intervals import wilson

GOOD = "model,benchmark,score,n,source\nqwen,C-Eval,0.742,1346,their paper\nyi,C-Eval,0.8,100,\n"


def test_scores_have_an_interval_from_n() -> None:
    first, second = read_imported(GOOD.encode(), "s.csv")
    assert (first.model, first.benchmark, first.n, first.source) == (
        "qwen", "C-Eval", 1346, "their paper",
    )  # fmt: skip
    assert (first.low, first.high) == tuple(wilson(0.742, 1346))
    assert second.high - second.low > first.high - first.low
    certain = read_imported(b"model,benchmark,score,n\nm,b,1,20\n", "s.csv")[0]
    assert certain.low < 0.9  # never ±0
    assert [row["model"] for row in json.loads(imported_to_json([first, second]))] == ["yi", "qwen"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "column 'model' is missing"),
        ("model,benchmark,score\n", "column 'n' is missing"),
        ("model,benchmark,score,n,modle\n", r"column 'modle' is not known. Did you mean 'model'\?"),
        ("model,benchmark,score,n,n\n", "column 'n' is there twice"),
        ("model,benchmark,score,n\n", "holds no score"),
        ("model,benchmark,score,n\na,b\n", "row 1 has 2 fields; the header names 4"),
        ("model,benchmark,score,n\na,b,74.2,10\n", "must be from 0 to 1, not in percent"),
        ("model,benchmark,score,n\na,b,nan,10\n", "score is 'nan'; it must be from 0 to 1"),
        ("model,benchmark,score,n\na,b,0_1,10\n", "score is '0_1'; it must be from 0 to 1"),
        ("model,benchmark,score,n\na,b,0.5,0\n", "n is '0'; it must be the number of items"),
        ("model,benchmark,score,n\na,b,0.5,1.5\n", "n is '1.5'; it must be the number"),
        ("model,benchmark,score,n\n,b,0.5,5\n", "row 1: model is empty"),
        (GOOD + "qwen,C-Eval,0.1,5,\n", "row 3: model 'qwen' has a score on 'C-Eval' already"),
        ('model,benchmark,score,n\n"a\n', "is not valid CSV"),
    ],
)
def test_faults_of_a_file(text: str, fault: str) -> None:
    with pytest.raises(ImportedScoresError, match=fault):
        read_imported(text.encode(), "s.csv")


def test_every_fault_at_once_and_none_of_other_encodings() -> None:
    with pytest.raises(ImportedScoresError) as caught:
        read_imported(b"model,benchmark,score,n\na,b,2,x\nc,,0.1,1\n", "s.csv")
    assert len(caught.value.faults) == 3
    with pytest.raises(ImportedScoresError, match=r"is not UTF-8 text"):
        read_imported("model,名".encode("gbk"), "s.csv")
