"""Reasons and errors of ours in Chinese: each pair is reached, and what is really said is known."""

import re

import pytest

import eval_ops.errors
import merge_ops.errors
import resources.errors
from assets.site.reasons import in_chinese, reasons
from assets.work.records.withdrawal import Withdrawal
from eval_ops.scores.gates import decide, parse_gate
from eval_ops.scores.scores import Sample, SuiteScores, summarize
from merge_ops.provenance.licences import NO_ADVICE, rules

HOLE = re.compile(r"\{(\w)\}")


def scores(**right: int) -> SuiteScores:
    """Scores on forty test items a benchmark, so many of them right."""
    samples = [
        Sample(benchmark, "test", f"{benchmark}-{number}", float(number < count))
        for benchmark, count in right.items()
        for number in range(40)
    ]
    return SuiteScores("tiny", "s" * 64, summarize(samples, "acc", "1"), tuple(samples), {})


@pytest.mark.parametrize(("english", "chinese"), reasons())
def test_each_pair_is_the_first_that_fits_its_own_text(english: str, chinese: str) -> None:
    holes = HOLE.findall(english)
    assert sorted(holes) == sorted(HOLE.findall(chinese))
    values = {hole: f"<{hole}>" for hole in holes}
    assert in_chinese(english.format_map(values)) == chinese.format_map(values)


def test_every_duty_and_conflict_of_the_licences_is_known() -> None:
    texts = [str(duty) for each in rules().values() for duty in each.duties]
    assert [each for each in [*texts, NO_ADVICE] if in_chinese(each) == each] == []


def test_names_of_errors_are_names_of_errors() -> None:
    modules = (eval_ops.errors, merge_ops.errors, resources.errors)
    for english, _ in reasons():
        name = english.partition(": ")[0]
        if name.endswith("Error"):
            assert any(hasattr(module, name) for module in modules), name


def test_what_strangers_say_stays_and_what_stands_in_ours_stays_in_it() -> None:
    for text in ("reads better", "a: b; c", "", "x" * 4000, "{a} \\ $&", "的"):
        assert in_chinese(text) == text
    mark = Withdrawal("ab" * 32, "read: $& {a}", "li@host", "2026-11-29T10:00:00", "e1")
    assert in_chinese(str(mark)) == (
        "e1 (abababababab) 已由 li@host 于 2026-11-29 撤回：read: $& {a}"
    )
    assert in_chinese("MissingSourceError: hf://a/b: gone") == "找不到来源：hf://a/b: gone"


def test_every_reason_of_a_gate_is_known() -> None:
    candidate, expert = scores(herbs=39, idioms=8), scores(herbs=6, idioms=30)
    for gate in ({}, {"minimum_samples": 5000}):
        for first, second in ((candidate, expert), (expert, candidate)):
            for incumbent in (None, second):
                decision = decide(first, {"e1": second}, incumbent, parse_gate(gate))
                for reason in decision.reasons:
                    assert re.search("[一-鿿]", in_chinese(reason)), reason
