"""The oracle is lm-eval's own simple_evaluate, and log-likelihoods written out in torch."""

import csv
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from assets.work.suite_files import load_suite
from eval_ops.errors import HarnessError, MetricError, NonFiniteError, UnknownTaskError
from eval_ops.scores import SuiteScores
from eval_ops.scores.scores import mean_and_stderr
from eval_ops.suites import Evaluator, Suite, read_items
from merge_ops.checkpoints.files.plain_files import StrangersFiles

WriteItems = Callable[..., Path]
WriteCheckpoint = Callable[..., Path]


@pytest.fixture(scope="module")
def suite(suite_path: Path) -> Suite:
    return load_suite(suite_path)


@pytest.fixture(scope="module")
def evaluator(suite: Suite) -> Evaluator:
    return Evaluator(suite, threads=1)


@pytest.fixture(scope="module")
def scored(evaluator: Evaluator, checkpoints: list[Path]) -> list[SuiteScores]:
    """All checkpoints, one after the other: the second and third by exchanged weights."""
    return [evaluator.score(folder) for folder in checkpoints]


def their_model(**settings: Any) -> Any:
    """A model of lm-eval's own class, whose registry hides its arguments from a type checker."""
    from lm_eval.models.huggingface import HFLM

    made: Any = HFLM
    return made(**settings)


def ask_lm_eval(folder: Path, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """Score tasks given as plain lm-eval configurations with lm-eval alone."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = their_model(
        pretrained=AutoModelForCausalLM.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        batch_size=5,
    )
    manager = TaskManager(include_defaults=False)
    return simple_evaluate(lm, tasks=tasks, task_manager=manager, bootstrap_iters=1)


@pytest.fixture(scope="module")
def oracle(suite_path: Path, checkpoints: list[Path]) -> dict[str, Any]:
    """lm-eval's own results for the second checkpoint, a task for each benchmark and split."""
    tasks = []
    for name, delimiter in [("herbs", ""), ("idioms", " ")]:
        items = read_items(suite_path.parent / f"{name}.jsonl", StrangersFiles()).items
        for split in ("validation", "test"):
            rows = [vars(item) | {"choices": list(item.choices)} for item in items]
            rows = [row for row in rows if row["split"] == split]
            path = suite_path.parent / f"{name}-{split}.json"
            path.write_text("\n".join(json.dumps(row) for row in rows))
            tasks.append(
                {
                    "task": f"{name}-{split}",
                    "dataset_path": "json",
                    "dataset_kwargs": {"data_files": {"test": str(path)}},
                    "test_split": "test",
                    "output_type": "multiple_choice",
                    "doc_to_text": "prompt",
                    "doc_to_choice": "choices",
                    "doc_to_target": "answer",
                    "target_delimiter": delimiter,
                    "metric_list": [
                        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                        for metric in ("acc", "acc_norm")
                    ],
                }
            )
    return ask_lm_eval(checkpoints[1], tasks)


def test_values_and_standard_errors_are_those_of_lm_eval(
    scored: list[SuiteScores], oracle: dict[str, Any]
) -> None:
    assert len(scored[1].scores) == 4
    for score in scored[1].scores:
        theirs = oracle["results"][f"{score.benchmark}-{score.split}"]
        assert score.value == theirs[f"{score.metric},none"]
        assert score.stderr == pytest.approx(theirs[f"{score.metric}_stderr,none"], rel=1e-12)
        assert score.n == theirs["sample_len"]
    assert [score.metric for score in scored[1].scores] == ["acc", "acc", "acc_norm", "acc_norm"]


def test_every_loglikelihood_is_that_of_lm_eval(
    scored: list[SuiteScores], oracle: dict[str, Any]
) -> None:
    theirs = {
        (name.split("-")[0], row["doc"]["id"]): (
            [answer[0] for answer in row["filtered_resps"]],
            row["acc" if name.startswith("herbs") else "acc_norm"],
            row["target"],
        )
        for name, rows in oracle["samples"].items()
        for row in rows
    }
    assert len(scored[1].samples) == len(theirs) == 44
    for sample in scored[1].samples:
        likelihoods, value, answer = theirs[sample.benchmark, sample.item]
        assert sample.loglikelihoods == pytest.approx(likelihoods, abs=2e-5)
        assert (sample.value, sample.answer) == (value, answer)
        assert sample.correct == (sample.choice == sample.answer)


def test_loglikelihoods_are_sums_of_token_log_probabilities(
    checkpoints: list[Path], suite: Suite, scored: list[SuiteScores]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoints[2]).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoints[2])
    found = {sample.item: sample.loglikelihoods for sample in scored[2].samples}
    for benchmark in suite.benchmarks:
        for item in benchmark.items[:6]:
            for choice, value in zip(item.choices, found[item.id], strict=True):
                # lm-eval gives the prompt's last spaces to the answer.
                prompt = tokenizer.encode(item.prompt.rstrip())
                whole = tokenizer.encode(item.prompt + benchmark.delimiter + choice)
                with torch.no_grad():
                    logits = model(torch.tensor([whole])).logits.double()
                table = logits.log_softmax(-1)[0]
                expected = sum(
                    table[place - 1, whole[place]].item()
                    for place in range(len(prompt), len(whole))
                )
                assert value == pytest.approx(expected, abs=2e-5)


def test_each_item_is_scored_once_in_its_split(suite: Suite, scored: list[SuiteScores]) -> None:
    asked = [(b.name, item.split, item.id) for b in suite.benchmarks for item in b.items]
    assert [(s.benchmark, s.split, s.item) for s in scored[0].samples] == asked
    assert scored[0].suite_digest == suite.digest
    assert scored[0].benchmarks == ("herbs", "idioms")
    assert set(scored[0].versions) == {"lm_eval", "torch", "transformers"}


def test_exchanged_weights_score_as_a_fresh_load(
    suite: Suite, checkpoints: list[Path], scored: list[SuiteScores]
) -> None:
    assert Evaluator(suite, threads=1).score(checkpoints[2]) == scored[2]
    assert scored[0].samples != scored[1].samples != scored[2].samples


def test_scores_do_not_depend_on_what_came_before(
    evaluator: Evaluator, checkpoints: list[Path], scored: list[SuiteScores]
) -> None:
    random.seed(5)
    torch.manual_seed(5)
    assert evaluator.score(checkpoints[0]) == scored[0]


def test_another_kind_of_checkpoint_is_loaded_afresh(
    evaluator: Evaluator,
    suite: Suite,
    checkpoints: list[Path],
    scored: list[SuiteScores],
    tmp_path: Path,
    write_checkpoint: WriteCheckpoint,
) -> None:
    llama = write_checkpoint(tmp_path / "llama", 7, "llama", tie_word_embeddings=False)
    assert evaluator.score(llama) == Evaluator(suite, threads=1).score(llama)
    assert evaluator.score(checkpoints[1]) == scored[1]


def test_known_digests_are_answered_from_memory(
    suite: Suite, checkpoints: list[Path], tmp_path: Path
) -> None:
    evaluator = Evaluator(suite)
    folder = shutil.copytree(checkpoints[0], tmp_path / "here")
    first = evaluator.score(folder, digest="abc")
    shutil.rmtree(folder)
    assert evaluator.score(folder, digest="abc") is first


def test_threads_and_random_states_are_put_back(suite: Suite, checkpoints: list[Path]) -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    evaluator = Evaluator(suite, threads=before + 1)
    evaluator.score(
        checkpoints[0], progress=lambda done, total: seen.append(torch.get_num_threads())
    )
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == states


def test_progress_counts_questions_and_nothing_is_printed(
    evaluator: Evaluator, checkpoints: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[int, int]] = []
    evaluator.score(checkpoints[1], progress=lambda done, total: calls.append((done, total)))
    total = 24 * 4 + 20 * 3
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) == 5
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_requests_of_every_shape_get_the_numbers_of_lm_eval(
    tmp_path: Path, write_checkpoint: WriteCheckpoint, kind: str
) -> None:
    """Answers of one token, one answer a prompt, no prompt: lm-eval's own loop, trimmed logits.

    Several answers a prompt share it, but not on a Mistral, whose cache forgets its beginning.
    """
    folder = write_checkpoint(tmp_path / kind, 0, kind, sliding_window=8)
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from eval_ops.running import make_lean

    settings = {
        "pretrained": AutoModelForCausalLM.from_pretrained(folder),
        "tokenizer": AutoTokenizer.from_pretrained(folder),
        "batch_size": 7,
    }
    draw = random.Random(0)
    words = ["ginseng ", "qi ", "lungs ", "x"]
    texts = ["".join(draw.choices(words, k=draw.randint(4, 30))).strip() for _ in range(40)]
    few = [(text, answer) for text in texts for answer in "AB"]
    long = [(text, " ".join(draw.choices(words, k=draw.randint(1, 6)))) for text in texts]
    shared = [(text, f"{answer} {text[:9]}") for text in texts for answer in ("qi", "lungs")]
    for pairs in (few, long, shared, [("", "ginseng"), ("q", "qi qi")]):
        requests = [
            Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)
        ]
        lean = make_lean(HFLM)(**settings)
        lean.report_to(None, [])
        ours = lean.loglikelihood(requests)
        theirs = their_model(**settings).loglikelihood(requests, disable_tqdm=True)
        assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
        assert [value for value, _ in ours] == pytest.approx([v for v, _ in theirs], abs=2e-5)
        assert lean._shares == (kind == "qwen2" or pairs is not shared)


@pytest.fixture(scope="module")
def cmmlu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions in the form of CMMLU's CSV files, and more examples for few-shot."""
    root = tmp_path_factory.mktemp("cmmlu")
    draw = random.Random(3)
    for name, n in [("test", 13), ("dev", 5)]:
        with (root / f"{name}.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["", "Question", "A", "B", "C", "D", "Answer"])
            for i in range(n):
                options = draw.sample(range(100), 4)
                out.writerow([i, f"{name} {draw.random()}?", *options, draw.choice("ABCD")])
    return root


def built_in(root: Path, **settings: Any) -> Suite:
    lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
    path = root / "suite.yaml"
    path.write_text(
        "name: cmmlu\nseed: 4\nbenchmarks:\n  - name: anatomy\n    task: cmmlu_anatomy\n"
        "    data_files: {test: test.csv, dev: dev.csv}\n" + lines
    )
    return load_suite(path)


def test_a_built_in_task_on_local_files(cmmlu: Path, checkpoints: list[Path]) -> None:
    suite = built_in(cmmlu, num_fewshot=2, limit=11, validation_share=0.25)
    evaluator = Evaluator(suite, threads=1)
    scores = evaluator.score(checkpoints[0])
    task = evaluator._tasks["anatomy"]["cmmlu_anatomy"]
    assert task.instances[0].args[0].count("答案：") == 3
    assert "test 0." in task.instances[0].args[0]
    assert [(s.split, s.n, s.version) for s in scores.scores if s.split == "test"] == [
        ("test", 8, suite.benchmarks[0].version)
    ]
    assert scores.score("anatomy", "validation").n == 3
    assert sorted(int(sample.item) for sample in scores.samples) == list(range(11))
    assert all(len(sample.loglikelihoods) == 4 for sample in scores.samples)

    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    theirs = simple_evaluate(
        evaluator._lm,
        tasks=[task],
        task_manager=TaskManager(include_defaults=False),
        limit=11,
        num_fewshot=2,
        bootstrap_iters=1,
    )["results"]["cmmlu_anatomy"]
    value, stderr = mean_and_stderr([sample.value for sample in scores.samples])
    assert value == pytest.approx(theirs["acc,none"])
    assert stderr == pytest.approx(theirs["acc_stderr,none"])
    assert evaluator.score(checkpoints[0]) == scores


def test_a_built_in_task_that_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("name: s\nbenchmarks: [{name: a, task: cmmlu_anatmy}]")
    with pytest.raises(UnknownTaskError, match=r"'cmmlu_anatmy'\. Did you mean 'cmmlu_anatomy'\?"):
        Evaluator(load_suite(path)).prepare()


def test_metrics_that_a_task_lacks(cmmlu: Path, checkpoints: list[Path]) -> None:
    evaluator = Evaluator(built_in(cmmlu, metric="acc_nrm"))
    with pytest.raises(MetricError, match=r"'acc_nrm' is none .* Did you mean 'acc_norm'\?"):
        evaluator.score(checkpoints[0])
    evaluator = Evaluator(built_in(cmmlu, metric="'acc,strict'"))
    with pytest.raises(MetricError, match=r"filter 'strict' is none of none"):
        evaluator.score(checkpoints[0])


def test_a_task_that_lm_eval_cannot_prepare(cmmlu: Path, tmp_path: Path) -> None:
    shutil.copy(cmmlu / "test.csv", tmp_path / "test.csv")
    path = tmp_path / "suite.yaml"
    path.write_text(
        "name: s\nbenchmarks: [{name: anatomy, task: cmmlu_anatomy, data_files: {test: test.csv}}]"
    )
    with pytest.raises(HarnessError, match=r"cannot prepare task 'cmmlu_anatomy': KeyError: 'dev'"):
        Evaluator(load_suite(path)).prepare()


def test_data_files_of_a_group(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("x")
    path = tmp_path / "suite.yaml"
    path.write_text("name: s\nbenchmarks: [{name: a, task: cmmlu, data_files: {test: test.csv}}]")
    with pytest.raises(
        HarnessError, match=r"data_files need a single task, but 'cmmlu' is a group"
    ):
        Evaluator(load_suite(path)).prepare()


def test_a_task_that_generates(tmp_path: Path, write_checkpoint: WriteCheckpoint) -> None:
    folder = write_checkpoint(tmp_path / "model", 0, max_position_embeddings=1024)
    for split in ("train", "test"):
        rows = [{"question": f"{split} {n}?", "answer": f"so #### {n}"} for n in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    path = tmp_path / "suite.yaml"
    path.write_text(
        "name: s\nbenchmarks:\n  - name: maths\n    task: gsm8k\n    num_fewshot: 1\n"
        "    metric: exact_match,flexible-extract\n"
        "    data_files: {train: train.jsonl, test: test.jsonl}\n"
    )
    scores = Evaluator(load_suite(path)).score(folder)
    assert [(s.split, s.metric, s.n) for s in scores.scores] == [
        ("validation", "exact_match", 2),
        ("test", "exact_match", 2),
    ]
    assert {sample.loglikelihoods for sample in scores.samples} == {()}
    assert {sample.value for sample in scores.samples} <= {0.0, 1.0}


def test_broken_weights_are_no_score(
    evaluator: Evaluator, checkpoints: list[Path], scored: list[SuiteScores], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints[0], tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"nan: the model answers item 'herbs-000'"):
        evaluator.score(folder)
    assert evaluator.score(checkpoints[0]) == scored[0]
