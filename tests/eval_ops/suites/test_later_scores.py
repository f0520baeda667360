"""What is valued after a model has written: grades of a judge, programs that are run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.work.scoring.scoring import read_answer
from assets.work.suite_files import load_suite
from eval_ops.errors import JudgeError, ScoresError
from eval_ops.scores import Sample, SuiteScores
from eval_ops.suites import Evaluator, later_scores
from eval_ops.suites.suites import Suite
from eval_ops.suites.valuing.judging import grade_in, messages
from tests.real_data import real_data

JUDGE = {"endpoint": "http://127.0.0.1:9/v1", "model": "grader"}
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Fine. Rating: [[7]]", 7.0),
        ("[[10]]", 10.0),
        ("[[ 8.5 ]] and [[2]]", 8.5),
        ("Rating: [6]", 6.0),
        ("[[11]]", None),
        ("[[0]]", None),
        ("7", None),
    ],
)
def test_grade_of_a_judges_words(text: str, grade: float | None) -> None:
    assert grade_in(text) == grade


def bench(tmp_path: Path, **more: Any) -> Suite:
    path = tmp_path / "mt-bench.yaml"
    document = {"shipped": "mt-bench", "name": "mt-bench", "data_dir": str(real_data())}
    path.write_text(json.dumps(document | {"judge": JUDGE} | more))
    return load_suite(path)


def test_prompts_are_those_of_fastchat(tmp_path: Path) -> None:
    suite = bench(tmp_path, only=["writing", "math"])
    writing, maths = suite.benchmarks
    item = writing.items[0]
    texts = {f"{item.id}/1": "first {question_2}", f"{item.id}/2": "second"}
    system, user = messages(writing, item, 1, texts)
    assert system["content"] == "You are a helpful assistant."
    assert (
        f"[Question]\n{item.prompt}\n\n[The Start of Assistant's Answer]\nfirst" in user["content"]
    )
    _, user = messages(writing, item, 2, texts)
    assert "### Assistant A:\nfirst {question_2}\n\n### User:\n" in user["content"]
    assert f"### User:\n{item.follow_up}\n\n### Assistant A:\nsecond\n" in user["content"]
    item = maths.items[0]
    texts = {f"{item.id}/1": "a", f"{item.id}/2": "b"}
    _, user = messages(maths, item, 2, texts)
    assert f"### Reference answer:\n{item.answers[1]}\n" in user["content"]
    assert "{" not in user["content"].replace(item.prompt, "").replace(item.answers[0], "")[:200]


@pytest.fixture(scope="module")
def chat_model(write_checkpoint: Callable[..., Path], tmp_path_factory: Any) -> Path:
    folder = write_checkpoint(
        tmp_path_factory.mktemp("chat") / "model", 7, max_position_embeddings=4096
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    return folder


def graded_suite(folder: Path, **more: Any) -> Suite:
    rows = [
        {"id": f"{n}", "split": ("validation", "test")[n % 2], "turns": [f"q{n}", f"and {n}"],
         "answers": ["right"]}
        for n in range(4)
    ]  # fmt: skip
    (folder / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "talk", "items": "i.jsonl", "kind": "generation", "metric": "judge",
             "turns": "turns", "chat_template": True, "max_new_tokens": 6}  # fmt: skip
    herbs = {"name": "herbs", "items": "h.jsonl"}
    (folder / "h.jsonl").write_text(
        json.dumps({"id": "1", "split": "test", "prompt": "?", "choices": ["a", "b"], "answer": 0})
    )
    path = folder / "talk.yaml"
    path.write_text(
        json.dumps({"name": "talk", "judge": JUDGE, "benchmarks": [entry, herbs], **more})
    )
    return load_suite(path)


@pytest.fixture(scope="module")
def written(chat_model: Path, tmp_path_factory: Any) -> tuple[Suite, SuiteScores]:
    suite = graded_suite(tmp_path_factory.mktemp("talk"))
    return suite, Evaluator(suite).score(chat_model)


def never(program: str) -> bool:
    raise AssertionError(program)


def test_second_questions_are_asked_after_the_first_answer(
    written: tuple[Suite, SuiteScores], chat_model: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _, scores = written
    model: Any = AutoModelForCausalLM.from_pretrained(chat_model, dtype="auto").eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(chat_model)
    texts = {sample.item: sample.text for sample in scores.samples if sample.benchmark == "talk"}
    assert sorted(texts) == [f"{n}/{turn}" for n in range(4) for turn in (1, 2)]
    for n in range(4):
        chat = [{"role": "user", "content": f"q{n}"}]
        for turn in (1, 2):
            tokens = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
            out = model.generate(**tokens, max_new_tokens=6, do_sample=False)
            new = out[0, tokens["input_ids"].shape[1] :]
            assert texts[f"{n}/{turn}"] == tokenizer.decode(new, skip_special_tokens=True)
            chat += [
                {"role": "assistant", "content": texts[f"{n}/1"]},
                {"role": "user", "content": f"and {n}"},
            ]


def test_second_questions_of_all_benchmarks_are_asked_together(
    chat_model: Path, tmp_path: Path
) -> None:
    rows = [{"id": f"{n}", "split": "test", "turns": [f"q{n}", f"and {n}"]} for n in range(2)]
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"items": "i.jsonl", "kind": "generation", "metric": "judge", "turns": "turns",
             "chat_template": True, "max_new_tokens": 40}  # fmt: skip
    benchmarks = [{"name": name, **entry} for name in ("one", "two")]
    path = tmp_path / "talks.yaml"
    document = {"name": "talks", "judge": JUDGE, "benchmarks": benchmarks, "max_new_tokens": 3}
    path.write_text(json.dumps(document))
    suite, told = load_suite(path), list[tuple[int, int]]()
    assert [benchmark.max_new_tokens for benchmark in suite.benchmarks] == [3, 3]
    path.write_text(json.dumps({**document, "max_new_tokens": 4}))
    assert load_suite(path).digest != suite.digest
    scores = Evaluator(suite).score(chat_model, lambda *done: told.append(done))
    assert [total for _, total in told[-2:]] == [4, 4]  # one run of lm-eval for second questions
    assert [sample.item for sample in scores.samples] == ["0/1", "1/1", "0/2", "1/2"] * 2
    texts = [sample.text for sample in scores.samples]
    assert texts[:4] == texts[4:]


def test_a_judge_grades_each_turn(written: tuple[Suite, SuiteScores]) -> None:
    suite, scores = written
    assert [score.benchmark for score in scores.scores] == ["herbs"]  # nothing is graded yet
    with pytest.raises(ScoresError, match=r"the two files do not belong together"):
        SuiteScores.from_json(scores.to_json(), scores.samples_to_parquet())
    asked: list[str] = []

    def ask(given: Any) -> str:
        asked.append(given[-1]["content"])
        return "[[4]]" if "q1" in given[1]["content"] else "so good, [[9]]"

    done = later_scores(suite, scores, ask, never)
    assert len(asked) == 8
    assert "[A right answer]\nright\n\n[Answer]\n" in asked[0]
    test, validation = done.score("talk", "test"), done.score("talk", "validation")
    assert (test.value, test.n, test.metric) == (pytest.approx(0.65), 4, "judge")
    assert (validation.value, validation.n) == (pytest.approx(0.9), 4)
    assert "judge grader at temperature 0, prompts" in test.version
    assert test.mean_length is not None
    groups = {sample.item: sample.group for sample in done.samples if sample.benchmark == "talk"}
    assert groups["1/2"] == groups["1/1"] == "1"
    assert SuiteScores.from_json(done.to_json(), done.samples_to_parquet()) == done


def test_a_judge_without_a_grade_is_asked_once_more(written: tuple[Suite, SuiteScores]) -> None:
    suite, scores = written

    def shy(given: Any) -> str:
        return "[[5]]" if len(given) == 4 else "hm"

    assert later_scores(suite, scores, shy, never).score("talk").value == 0.5
    with pytest.raises(
        JudgeError, match=r"gives no grade to the answer to item '0/1', asked twice"
    ):
        later_scores(suite, scores, lambda _: "hm", never)


ENDINGS = [f"{grade}]]" for grade in range(1, 11)]


def _by_one_pass(judge: Any, parts: tuple[str, ...]) -> float:
    import torch

    model, encoder = judge
    *before, after = (encoder(part, add_special_tokens=False)["input_ids"] for part in parts)
    told = [token for tokens in before for token in tokens]
    with torch.no_grad():
        table = model(torch.tensor([told + after])).logits[0].log_softmax(dim=-1)
    return sum(float(table[len(told) + n - 1, token]) for n, token in enumerate(after))


def _read(judge: Any, text: str, keeps: bool = True) -> Any:
    from eval_ops.suites.valuing.judge_child import Read

    model, encoder = judge
    tokens = encoder(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    known = model(tokens[:, :-1], use_cache=True).past_key_values if keeps else None
    return Read(tokens, known)


def test_a_judge_of_this_machine_always_gives_a_grade(chat_model: Path, tmp_path: Path) -> None:
    from eval_ops.running import LiveModel
    from eval_ops.suites.valuing.judge_child import LEAD, _likeliest, says

    judge = LiveModel().load(chat_model)
    chat = [{"role": "system", "content": "Grade."}, {"role": "user", "content": "warms"}]
    words = says(judge, chat, 0.0, 8)
    assert grade_in(words) is not None
    assert says(judge, chat, 0.0, 8) == words
    for text in ("warms", "cold"):
        likelihoods = [_by_one_pass(judge, (text, LEAD, ending)) for ending in ENDINGS]
        best = ENDINGS[likelihoods.index(max(likelihoods))]
        assert _likeliest(*judge, _read(judge, text), LEAD, ENDINGS) == best
        assert _likeliest(*judge, _read(judge, text, keeps=False), LEAD, ENDINGS) == best
    local = graded_suite(tmp_path, judge={"model": str(chat_model)})
    assert local.judge is not None
    assert f"judge model@{local.judge.digest[:12]} at temp" in local.benchmarks[0].version


RIGHT = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(1, 2) == 3\nassert add(0, 0) == 0"


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (RIGHT, True),
        ("import math, collections, heapq, re\n" + RIGHT, True),
        ("def add(a, b):\n    return a - b\n", False),
        ("def add(a, b:\n", False),
        ("import sys\nsys.exit(0)\n", False),
        ("import os\nos._exit(0)\n", False),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9))\n" + RIGHT, False),
        ("import subprocess\nsubprocess.run(['true'])\n" + RIGHT, False),
        ("open('/tmp/ronghe-was-here', 'w')\n" + RIGHT, False),
        ("import os\nos.remove(__import__('sys').executable)\n" + RIGHT, False),
        ("import ctypes\nctypes.CDLL(None)\n" + RIGHT, False),
        ("x = bytearray(3 << 30)\n" + RIGHT, False),
        ("open('own.txt', 'w').write('a')\n" + RIGHT, True),
        ("input()\n" + RIGHT, False),
    ],
)
def test_programs_run_in_a_child_that_can_do_no_harm(answer: str, passes: bool) -> None:
    from assets.work.measuring.grading import runs_through

    assert runs_through(f"{answer}\n{TESTS}") is passes
    assert not Path("/tmp/ronghe-was-here").exists()


def test_programs_that_compute_or_wait_for_ever_do_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from assets.work.measuring import grading

    monkeypatch.setattr(grading, "PROGRAM_CPU_SECONDS", 1)
    assert not grading.runs_through("while True: pass")
    monkeypatch.setattr(grading, "PROGRAM_WAITS", 1.0)
    assert not grading.runs_through("import threading; threading.Event().wait()")


def test_the_right_programs_of_mbpp_pass(tmp_path: Path) -> None:
    from assets.work.measuring.grading import runs_through

    rows = real_data("mergelm", "mbpp_test.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, rows[:4]):
        assert runs_through(row["code"] + "\n" + "\n".join(row["test_list"]))


def test_code_answers_are_run_with_the_items_tests(tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "split": "test", "prompt": f"q{n}", "test_list": TESTS.split("\n")}
            for n in range(2)]  # fmt: skip
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = {"name": "code", "items": "i.jsonl", "kind": "generation", "metric": "code",
             "tests": "test_list", "prompt": "{prompt} {tests}"}  # fmt: skip
    path = tmp_path / "code.yaml"
    path.write_text(json.dumps({"name": "code", "allow_code": True, "benchmarks": [entry]}))
    suite = load_suite(path)
    assert suite.benchmarks[0].items[0].prompt == f"q0 {TESTS}"
    samples = tuple(
        Sample("code", "test", f"{n}", float("nan"), text=text, length=3)
        for n, text in enumerate([RIGHT, "no code"])
    )
    empty = SuiteScores("code", suite.digest, (), samples, {})
    done = read_answer(suite, empty.to_json(), empty.samples_to_parquet(), "cpu", 1)
    assert [sample.value for sample in done.samples] == [1.0, 0.0]
    assert (done.score("code").value, done.score("code").metric) == (0.5, "code")
    assert replace(done, samples=()).scores == done.scores
