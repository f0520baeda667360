"""The shipped suites: their data pinned and checked, their faults told before any work."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from assets.work.suite_files import load_suite
from eval_ops.errors import HarnessError, ItemsError, SuiteError
from eval_ops.suites import Evaluator, harness, shipped_suites
from tests.real_data import real_data

JUDGE = {"endpoint": "http://127.0.0.1:9/v1", "model": "grader"}
SETTINGS: dict[str, dict[str, Any]] = {
    "merging-challenge": {},
    "zh": {"only": ["cmmlu_ancient_chinese", "cmmlu_traditional_chinese_medicine"]},
    "math-code": {"allow_code": True},
    "mt-bench": {"judge": JUDGE},
}


@pytest.fixture(autouse=True)
def nothing_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)


def suite_file(folder: Path, name: str, **more: Any) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"shipped": name, "name": name, **more}))
    return path


def test_there_are_five_beside_the_quickstart() -> None:
    assert set(shipped_suites()) == {"merging-challenge", "zh", "tcm", "math-code", "mt-bench"}


@pytest.mark.parametrize("name", SETTINGS)
def test_digest_is_the_same_with_data_dir_and_before_anything_was_fetched(
    tmp_path: Path, name: str
) -> None:
    more = SETTINGS[name]
    there = load_suite(suite_file(tmp_path, name, data_dir=str(real_data()), **more))
    awaited = load_suite(suite_file(tmp_path, name, **more))
    assert there.waits_for == ()
    assert awaited.waits_for
    assert there.digest == awaited.digest
    limited = load_suite(suite_file(tmp_path, name, limit=3, **more))
    assert limited.digest != there.digest
    with pytest.raises(HarnessError, match=r"has not been fetched; `ronghe refresh` fetches it"):
        Evaluator(awaited).prepare()


def test_what_the_suites_hold(tmp_path: Path) -> None:
    data = str(real_data())
    challenge = load_suite(suite_file(tmp_path, "merging-challenge", data_dir=data))
    cosmos, xsum = challenge.benchmarks
    assert (len(cosmos.items), len(xsum.items)) == (500, 200)
    assert len({item.group for item in cosmos.items}) == 405
    assert {len(item.choices) for item in cosmos.items} == {4}
    splits = {item.group: {i.split for i in cosmos.items if i.group == item.group}
              for item in cosmos.items}  # fmt: skip
    assert all(len(each) == 1 for each in splits.values())
    assert xsum.items[0].answers[0].startswith("Former Premier League footballer Sam Sodje")
    code = load_suite(suite_file(tmp_path, "math-code", data_dir=data, allow_code=True))
    mbpp = code.benchmarks[1].items
    assert len(mbpp) == 500
    assert mbpp[0].tests.count("assert remove_Occ") == 3
    assert mbpp[0].prompt.count("[BEGIN]") == 4
    assert mbpp[0].prompt.endswith(
        f"Your code should pass these tests:\n\n{mbpp[0].tests}\n[BEGIN]\n"
    )
    bench = load_suite(suite_file(tmp_path, "mt-bench", data_dir=data, judge=JUDGE))
    assert [len(each.items) for each in bench.benchmarks] == [10] * 8
    assert sum(bool(item.answers) for each in bench.benchmarks for item in each.items) == 30
    assert all(
        "judge grader at temperature 0, prompts " in each.version for each in bench.benchmarks
    )


def test_the_judge_is_in_the_digest(tmp_path: Path) -> None:
    digests = {
        load_suite(suite_file(tmp_path, "mt-bench", judge=judge)).digest
        for judge in (JUDGE, JUDGE | {"model": "other"}, JUDGE | {"temperature": 0.5})
    }
    moved = load_suite(suite_file(tmp_path, "mt-bench", judge=JUDGE | {"endpoint": "https://x/v1"}))
    assert len(digests) == 3
    assert moved.digest in digests


def test_prompt_of_mbpp_is_that_of_lm_eval(tmp_path: Path) -> None:
    import lm_eval.tasks
    import yaml

    text = (Path(lm_eval.tasks.__file__).parent / "mbpp" / "mbpp.yaml").read_text()
    theirs = yaml.safe_load(text.replace("!function", ""))["doc_to_text"]
    path = suite_file(tmp_path, "math-code", data_dir=str(real_data()), allow_code=True)
    item = load_suite(path).benchmarks[1].items[7]
    row = json.loads(real_data("mergelm", "mbpp_test.jsonl").read_text().splitlines()[7])
    asked = theirs.replace("{{text}}", row["text"])
    for number, test in enumerate(row["test_list"]):
        asked = asked.replace(f"{{{{test_list[{number}]}}}}", test)
    assert item.prompt.endswith(f"[DONE]\n\n{asked}")


@pytest.mark.parametrize(
    ("name", "more", "fault"),
    [
        ("math-code", {}, r"runs code that models wrote.* says `allow_code: true`"),
        ("mt-bench", {}, r"is graded by a judge and there is none; add `judge: \{endpoint"),
        (
            "mt-bench",
            {"judge": {"model": "no-folder"}},
            r"'no-folder', a folder without config",
        ),
        ("zh", {"benchmarks": []}, r"benchmarks is not a key that a file with `shipped` may set"),
        ("zh", {"limt": 3}, r"limt is not a key .*Did you mean 'limit'\?"),
        ("zh", {"only": ["cmlu"]}, r"only: 'cmlu' is none of the benchmarks cmmlu_trad"),
        ("zhh", {}, r"shipped is zhh, no shipped suite. Did you mean 'zh'\?"),
    ],
)
def test_faults_are_told_before_any_work(
    tmp_path: Path, name: str, more: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SuiteError, match=fault):
        load_suite(suite_file(tmp_path, name, **more))


def test_missing_and_changed_data_is_named(tmp_path: Path) -> None:
    path = suite_file(tmp_path, "merging-challenge", data_dir="data")
    (tmp_path / "data" / "llm_merging").mkdir(parents=True)
    with pytest.raises(
        ItemsError, match=r"cosmos_qa.csv: is not there, in the suite's data_dir; it"
    ):
        load_suite(path)
    (tmp_path / "data" / "llm_merging" / "cosmos_qa.csv").write_text("id,input\n")
    (tmp_path / "data" / "llm_merging" / "xsum.csv").write_text("id,input\n")
    with pytest.raises(
        ItemsError, match=r"has the SHA-256 .*, not 460259d8.* write a suite of your"
    ):
        load_suite(path)


def test_data_of_lm_evals_tasks_needs_no_network(tmp_path: Path) -> None:
    more = SETTINGS["zh"] | {"limit": 5, "data_dir": str(real_data())}
    evaluator = Evaluator(load_suite(suite_file(tmp_path, "zh", **more)))
    evaluator.prepare()
    more = {"limit": 5, "data_dir": str(real_data()), "allow_code": True, "max_new_tokens": 300}
    gsm8k = load_suite(suite_file(tmp_path, "math-code", **more))
    maths = Evaluator(gsm8k)
    maths.prepare()
    task = maths._tasks["gsm8k"]["gsm8k_cot"]
    assert (len(task.eval_docs), task.get_config("num_fewshot")) == (1319, 8)
    # The task says nothing of its own, so its answers have lm-eval's 256 tokens and not 300.
    assert task.get_config("generation_kwargs")["max_gen_toks"] == 256
    harness._write_less(task, 40)
    assert task.get_config("generation_kwargs")["max_gen_toks"] == 40
    assert [benchmark.max_new_tokens for benchmark in gsm8k.benchmarks] == [300, 256]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    root = tmp_path / "mirror"
    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: _Quiet(*a, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()
    thread.join()


def test_pinned_data_is_fetched_once_and_checked(
    tmp_path: Path, mirror: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, root = mirror
    monkeypatch.setattr("resources.benchmarks.pinned_files.ADDRESS", address)
    monkeypatch.setattr("resources.benchmarks.pinned_files._PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    path = suite_file(tmp_path, "merging-challenge")
    with pytest.raises(
        SuiteError, match=r"cannot be fetched: HTTP 404. Where this machine does not"
    ):
        load_suite(path, fetch=True)
    for file in load_suite(path).waits_for:
        target = root / file.repository / file.commit / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("id,input\n")
    with pytest.raises(
        SuiteError, match=r"has the SHA-256 .*; what came is not what the suite names"
    ):
        load_suite(path, fetch=True)
    for file in load_suite(path).waits_for:
        target = root / file.repository / file.commit / file.path
        shutil.copyfile(real_data("llm_merging", target.name), target)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256
    fetched = load_suite(path, fetch=True)
    assert [len(each.items) for each in fetched.benchmarks] == [500, 200]
    shutil.rmtree(root)
    assert load_suite(path) == fetched  # what is kept needs no network
