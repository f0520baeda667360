"""The leaderboard on terminals of any width, and as CSV and JSON: no number is ever lost."""

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from rich.cells import cell_len

from assets.work.ranking.published_evidence import publish_evidence
from merge_ops.errors import SettingsError
from orchestration.commands.console import PlainConsole
from orchestration.commands.evidence import leaderboard_table
from orchestration.commands.evidence.evidence_tables import print_evidence
from orchestration.commands.evidence.leaderboard_command import BoardOptions, leaderboard
from orchestration.commands.evidence.leaderboard_table import as_csv, as_json, sorted_rows, tables
from tests.assets.work.made_up_store import ScoredStore

QWEN = ("Qwen2.5-7B-Instruct", "Qwen2.5-Coder-7B-Instruct", "Qwen2.5-Math-7B-Instruct")
BENCHMARKS = ("herb_class", "idiom_meaning", "times_table")


def compared(difference: float, verdict: str = "undecided") -> dict[str, Any]:
    low, high = difference - 0.05, difference + 0.05
    return {"verdict": verdict, "difference": difference, "low": low, "high": high, "p_value": 0.5}


def score(value: float) -> dict[str, Any]:
    return {"value": value, "stderr": 0.01, "low": value - 0.02, "high": value + 0.01, "n": 100}


def row(
    experts: Sequence[str] = QWEN,
    mean: float = 0.964,
    benchmarks: Sequence[str] = BENCHMARKS,
    **said: object,
) -> dict[str, Any]:
    scores = {
        name: score((number + 1) / 100 + 0.9 * mean - 0.05)
        for number, name in enumerate(benchmarks)
    }
    return {
        "kind": "candidate",
        "label": f"ties {'+'.join(experts)} density=0.3_lambda=1.0",
        "recipe": "ties",
        "experts": list(experts),
        "coefficient": "density=0.3_lambda=1.0",
        "digest": f"{mean:.17f}",
        "benchmarks": scores,
        "mean": score(mean),
        "validation_mean": 1 - mean,
        "vs_base": compared(0.674, "better"),
        "vs_best_expert": compared(0.428 if mean > 0.9 else -0.004),
        "vs_average": None,
        **said,
    }


def printed(rows: Sequence[Mapping[str, Any]], width: int, champions: Any = None) -> str:
    console = PlainConsole()
    console.width = width
    with console.capture() as capture:
        for table in tables("leaderboard: q", rows, width, champions):
            console.print(table, soft_wrap=True)
    return capture.get()


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize(
    ("experts", "benchmarks", "width"),
    [
        (QWEN, BENCHMARKS, 80),
        (QWEN, BENCHMARKS, 60),
        ([f"expert-number-{n:02}" for n in range(12)], BENCHMARKS, 158),
        ([f"expert-number-{n:02}" for n in range(12)], BENCHMARKS, 80),
        (QWEN, [f"cmmlu_subject_{n:02}" for n in range(20)], 80),
        (QWEN, [f"cmmlu_subject_{n:02}" for n in range(20)], 200),
        (["一个名字很长的中文专家模型" * 3, "另一个"], BENCHMARKS, 80),
    ],
)
def test_no_number_verdict_or_name_is_cut(
    experts: Sequence[str], benchmarks: Sequence[str], width: int
) -> None:
    rows = [row(experts, 0.964, benchmarks), row(experts, 0.685, benchmarks)]
    text = printed(rows, width)
    assert "…" not in text
    assert all(cell_len(line) <= width for line in text.splitlines())
    for each in rows:
        values = [score["value"] for score in each["benchmarks"].values()]
        for value in (*values, each["mean"]["value"]):
            assert f"{100 * value:.1f}" in text
    for word in ("96.4 (94.4–97.4)", "68.5 (66.5–69.5)", "+42.8 undecided", "-0.4 undecided"):
        assert word in text
    flat = squeezed(text)
    for name in experts:
        assert squeezed(name[:10]) in flat


def test_names_fold_behind_plus_signs() -> None:
    lines = printed([row()], 80).splitlines()
    folded = [line for line in lines if "Qwen2.5-Coder-7B" in line]
    assert folded
    assert not any(line.strip().startswith("+") for line in lines)


def test_a_wide_terminal_shows_all_comparisons_and_errors() -> None:
    text = printed([row()], 158)
    assert "+67.4 better" in text
    assert text.count("–9") + text.count("–8") == 4
    assert "average" in text


def test_champions_old_rows_and_kinds_are_marked() -> None:
    expert = row((), 0.5, label="herbs", kind="expert", recipe=None, coefficient=None)
    old = row(stale="recipes/ties.yaml is broken")
    text = printed([old, expert], 158, {"ties": old["digest"]})
    assert "(champion, old)" in text
    assert "herbs (expert)" in text


def test_a_benchmark_may_be_called_like_a_column() -> None:
    text = printed([row(benchmarks=["mean", "vs_base"])], 158)
    assert "benchmark" in text
    assert text.count("(9") + text.count("(8") == 3


def test_rows_of_an_earlier_release_have_standard_errors() -> None:
    earlier = row()
    earlier["mean"] = {"value": 0.964, "stderr": 0.013}
    assert "96.4 ±1.3" in printed([earlier], 158)


def test_rows_are_sorted_by_anything_they_have() -> None:
    first, second = row(mean=0.964), row(mean=0.685, vs_base=None)
    assert sorted_rows([second, first], "mean") == [first, second]
    assert sorted_rows([first, second], "validation") == [second, first]
    assert sorted_rows([second, first], "times_table") == [first, second]
    assert sorted_rows([second, first], "vs-base") == [first, second]
    assert sorted_rows([second, first], "vs-best-expert") == [first, second]
    assert sorted_rows([first, second], "name") == [first, second]
    with pytest.raises(SettingsError, match=r"--sort is 'times'\. .*It must be one of mean, "):
        sorted_rows([first], "times")


def test_csv_and_json_hold_every_number() -> None:
    rows = [row(), row(mean=0.685, label="=evil()")]
    read = list(csv.DictReader(io.StringIO(as_csv({"q": rows}))))
    assert [each["rank"] for each in read] == ["1", "2"]
    assert float(read[0]["mean"]) == 0.964
    assert float(read[0]["herb_class"]) == rows[0]["benchmarks"]["herb_class"]["value"]
    assert float(read[0]["vs_base_low"]) == rows[0]["vs_base"]["low"]
    assert read[0]["vs_average_verdict"] == ""
    assert read[1]["model"] == "'=evil()"
    told = json.loads(as_json({"q": rows}))
    assert [each.pop("rank") for each in told["q"]] == [1, 2]
    assert told["q"] == rows


def test_500_rows_are_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    folded = leaderboard_table._folded

    def counting(name: str, room: int) -> list[str]:
        nonlocal calls
        calls += 1
        return folded(name, room)

    monkeypatch.setattr(leaderboard_table, "_folded", counting)
    text = printed([row(mean=0.9 - number / 1000) for number in range(500)], 100)
    assert calls == 500
    assert re.search(r"^500 ", text.replace(" 500", "500"), re.MULTILINE)


EVIDENCE: dict[str, Any] = {
    "luck": {"candidates": 3, "apparent": 0.9, "bias": 0.012, "told": "The best of 3 has 90.0"},
    "advice": "merge",
    "retention": [
        {
            "merge": "ties a+b", "expert": expert, "benchmarks": ["q"], "gain": 0.4,
            "share": share, "low": low, "high": high, "learned": 12, "lost": 2,
        }
        for expert, share, low, high in (("a", 0.88, 0.79, 0.96), ("b", None, None, None))
    ],
    "interference": [
        {"merge": "ties a+b", "sure": 20, "broken": 1, "low": 0.009, "high": 0.236, "new": 4}
    ],
    "fronts": [
        {
            "goals": ["tokens of an answer", "mean"], "units": ["tokens", "share"],
            "front": [{"model": "a", "values": [12.25, 0.5]}],
        }
    ],
}  # fmt: skip


def told(whole: bool, found: dict[str, Any] | None = EVIDENCE) -> str:
    console = PlainConsole()
    console.width = 158
    with console.capture() as capture:
        print_evidence(console, "q", found, whole)
    return capture.get()


def test_the_luck_of_the_best_is_always_told_and_the_rest_when_asked() -> None:
    assert told(False) == "the luck of the best: The best of 3 has 90.0\n"
    text = told(True)
    for words in (
        "merge or route: merge", "88 (79 to 96)", "no gain", "5 (1 to 24)", "12.2", "50.0",
        "nothing beats these in tokens of an answer and mean: q",
    ):  # fmt: skip
        assert words in text
    assert told(False, {**EVIDENCE, "luck": None}) == told(False, None) == ""
    assert "q: no evidence was published with this leaderboard" in told(True, None)


def test_evidence_is_that_of_this_leaderboard(
    made: ScoredStore, capsys: pytest.CaptureFixture[str]
) -> None:
    board = made.store.resolve("leaderboard")
    assert board is not None
    publish_evidence(made.store, board.digest, {"one": EVIDENCE})
    leaderboard(BoardOptions())
    assert "the luck of the best: The best of 3 has 90.0\n" in capsys.readouterr().out
    leaderboard(BoardOptions(form="json", evidence=True))
    assert json.loads(capsys.readouterr().out) == {"one": EVIDENCE}
    with pytest.raises(SettingsError, match="--evidence goes with --json or the table"):
        leaderboard(BoardOptions(form="csv", evidence=True))
    publish_evidence(made.store, "0" * 64, {"one": EVIDENCE})
    leaderboard(BoardOptions())
    assert "luck" not in capsys.readouterr().out
