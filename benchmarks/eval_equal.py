"""Our scores and those of lm_eval's command line, on the same model and tasks.

    python -m benchmarks.eval_equal --model /models/SmolLM2-135M-Instruct --items 40
    python -m benchmarks.eval_equal --model … --dtype bfloat16 --causes

The tasks are CosmosQA as own items (sentences to choose from), the same questions answered in the
model's own words (exact match), and subjects of CMMLU by their local files, with examples before
each question. lm_eval gets the first two as task files and CMMLU's own tasks with other data; of
its settings only the batch size is given. Ours are scored in both ways: as usual, and with the
suite's `lm_eval_batch_size`, whose answers shall be the command's to the last digit.

`--causes` scores CosmosQA in one process by lm_eval's own class, changing one thing after the
other, and says how far each answer is from that of the same weights in float32.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.eval_sweep import DATA, compare, read_questions
from benchmarks.rigs.contest import markdown, parser_for, save, say, work_folder
from benchmarks.rigs.processes import ROOT, measure

SUBJECTS = ("traditional_chinese_medicine", "ancient_chinese", "chinese_literature")
NEW_TOKENS = 16
COLUMNS = ("benchmark", "items", "lm_eval", "ours, its batches", "answers apart", "ours",
           "choices apart", "largest difference")  # fmt: skip
CAUSES = ("what is computed", "mean off", "largest off", "choices apart")
EXACT = "exact.yaml"


def write_tasks(work: Path, arguments: argparse.Namespace) -> list[str]:
    """Write our suite and their task files; the names of the tasks."""
    questions = read_questions(arguments.data / DATA, arguments.items)
    written = [
        {**{key: row[key] for key in ("id", "split", "prompt")}, "answers": [row["choices"][place]]}
        for row in questions[: arguments.written]
        for place in [row["answer"]]
    ]
    tasks = work / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    benchmarks: list[dict[str, Any]] = [
        {"name": "cosmos", "items": "cosmos.jsonl", "delimiter": " "},
        {"name": "cosmos_written", "items": "cosmos_written.jsonl", "kind": "generation",
         "metric": "exact_match", "max_new_tokens": NEW_TOKENS, "stop": ["\n\n"]},
    ]  # fmt: skip
    for name, rows in (("cosmos", questions), ("cosmos_written", written)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (work / f"{name}.jsonl").write_text(text, encoding="utf-8")
    source: dict[str, Any] = {"dataset_path": "json", "test_split": "test"}
    common = {**source, "doc_to_text": "prompt", "num_fewshot": 0}
    metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
    theirs: dict[str, dict[str, Any]] = {
        "cosmos": {
            **common, "output_type": "multiple_choice", "doc_to_choice": "choices",
            "doc_to_target": "answer", "target_delimiter": " ", "metric_list": [metric],
        },
        "cosmos_written": {
            **common, "output_type": "generate_until", "doc_to_target": "{{answers[0]}}",
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": NEW_TOKENS},
            "metric_list": [{**metric, "metric": "exact_match"}],
        },
    }  # fmt: skip
    for name, task in theirs.items():
        files = {"data_files": {"test": str(work / f"{name}.jsonl")}}
        content = {"task": name, **task, "dataset_kwargs": files}
        (tasks / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")
    for subject in arguments.subjects:
        name = f"cmmlu_{subject}"
        files = {
            split: str((arguments.data / "cmmlu" / split / f"{subject}.csv").resolve())
            for split in ("test", "dev")
        }
        benchmarks.append({"name": name, "task": name, "data_files": files,
                           "num_fewshot": arguments.shots, "limit": arguments.limit})  # fmt: skip
    suite = {"name": "equal", "benchmarks": benchmarks}
    (work / "suite.yaml").write_text(json.dumps(suite), encoding="utf-8")
    exact = {**suite, "lm_eval_batch_size": arguments.batch_size}
    (work / EXACT).write_text(json.dumps(exact), encoding="utf-8")
    return [each["name"] for each in benchmarks]


def ours(work: Path, suite: str) -> dict[str, Any]:
    """Accuracy and answers of each benchmark, from a process of its own."""
    out = work / "ours.json"
    command = [sys.executable, "-m", "benchmarks.rigs.eval_sweep_work", "suite"]
    run = measure([*command, str(work / "model"), str(work / suite), str(out)])
    say(f"ours by {suite}: {run.wall:.1f} s, CPU {run.cpu:.1f} s")
    return json.loads(out.read_text(encoding="utf-8"))


def theirs(work: Path, names: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """The same from lm_eval's command line, by the program that this project's library is from."""
    found: dict[str, Any] = {}
    for name in names:
        results = work / "results"
        shutil.rmtree(results, ignore_errors=True)
        command = [str(arguments.lm_eval), "run", "--model", "hf", "--model_args",
                   f"pretrained={work / 'model'}", "--tasks", name,
                   "--log_samples", "--batch_size", str(arguments.batch_size), "--device", "cpu",
                   "--output_path", str(results)]  # fmt: skip
        if name.startswith("cmmlu"):
            subject = name.removeprefix("cmmlu_")
            folder = work / "cmmlu_tasks"
            _local_task(folder, name, arguments.data / "cmmlu", subject)
            command += ["--include_path", str(folder), "--num_fewshot", str(arguments.shots)]
            command += ["--limit", str(arguments.limit)]
        else:
            command += ["--include_path", str(work / "tasks")]
        run = measure(command)
        say(f"lm_eval {name}: {run.wall:.1f} s, CPU {run.cpu:.1f} s")
        (summary,) = results.rglob("results_*.json")
        (log,) = results.rglob("samples_*.jsonl")
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        scores = json.loads(summary.read_text(encoding="utf-8"))["results"][name]
        own = "cosmos" in name
        found[name] = {
            "acc": scores.get("acc,none", scores.get("exact_match,none")),
            "items": {
                row["doc"]["id"] if own else str(row["doc_id"]): _answer(row) for row in rows
            },
        }
    return found


def _answer(row: dict[str, Any]) -> Any:
    """Log-likelihoods of the choices, or the text that was written."""
    answers = row["filtered_resps"]
    return answers[0] if isinstance(answers[0], str) else [float(pair[0]) for pair in answers]


def _local_task(folder: Path, name: str, data: Path, subject: str) -> None:
    """Write CMMLU's task of a subject as lm_eval has it, with local files for data."""
    import lm_eval.tasks

    folder.mkdir(exist_ok=True)
    (own,) = Path(lm_eval.tasks.__file__).parent.rglob(f"{name}.yaml")
    shutil.copy(own.parent / "_default_template_yaml", folder / "_default_template_yaml")
    files = {split: str((data / split / f"{subject}.csv").resolve()) for split in ("test", "dev")}
    lines = [
        line for line in own.read_text(encoding="utf-8").splitlines() if "dataset_" not in line
    ]
    more = ["dataset_path: csv", "dataset_name: null",
            f"dataset_kwargs: {json.dumps({'data_files': files})}"]  # fmt: skip
    (folder / f"{name}.yaml").write_text("\n".join([*lines, *more]) + "\n", encoding="utf-8")


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """Both programs, and the table."""
    names = write_tasks(work, arguments)
    command = [sys.executable, "-m", "benchmarks.rigs.eval_sweep_work", "cast"]
    measure([*command, str(arguments.model), str(work / "model"), arguments.dtype])
    if arguments.causes:
        causes(work, arguments)
        return
    mine, exact = ours(work, "suite.yaml"), ours(work, EXACT)
    other = theirs(work, names, arguments)
    rows: list[list[str]] = []
    for name in names:
        a, b = mine[name], other[name]
        row = [name, str(len(b["items"])), repr(b["acc"]), repr(exact[name]["acc"]),
               str(apart(exact[name], b)), repr(a["acc"])]  # fmt: skip
        if "written" in name:
            rows.append([*row, str(apart(a, b)), ""])
            continue
        found = compare(a, b)
        rows.append([*row, str(found["choices apart"]), f"{found['largest difference']:.2g}"])
    print(f"\n{markdown(COLUMNS, rows)}\n\n{arguments.dtype}, batches of {arguments.batch_size};"
          " texts that differ are counted as choices apart")  # fmt: skip
    save(arguments.json, {"dtype": arguments.dtype, "rows": rows})


def apart(mine: dict[str, Any], other: dict[str, Any]) -> int:
    """Items whose answer is not the same to the last digit, or the same text."""
    return sum(mine["items"][item] != answer for item, answer in other["items"].items())


def causes(work: Path, arguments: argparse.Namespace) -> None:
    """What moves an answer in half precision, by one change at a time."""
    out = work / "causes.json"
    command = [sys.executable, "-m", "benchmarks.rigs.eval_sweep_work", "causes"]
    run = measure([*command, str(work / "model"), str(work / "suite.yaml"), str(out)])
    say(f"causes: {run.wall:.1f} s, CPU {run.cpu:.1f} s")
    found = json.loads(out.read_text(encoding="utf-8"))
    rows = [[name, *(f"{value:.3g}" for value in values)] for name, values in found.items()]
    print(f"\n{markdown(CAUSES, rows)}\n\n{arguments.dtype}, against float32")
    save(arguments.json, {"dtype": arguments.dtype, "rows": rows})


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    data = Path(os.environ.get("RONGHE_TEST_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="the folder of benchmark data")
    parser.add_argument("--items", type=int, default=100, help="of CosmosQA")
    parser.add_argument("--written", type=int, default=10, help="questions answered in words")
    parser.add_argument("--subjects", nargs="*", default=SUBJECTS, help="of CMMLU")
    parser.add_argument("--limit", type=int, default=40, help="questions of each subject")
    parser.add_argument("--shots", type=int, default=5, help="examples before each question")
    parser.add_argument("--dtype", default="float32", help="the model is cast to it first")
    parser.add_argument("--batch-size", type=int, default=8, help="of lm_eval")
    parser.add_argument("--causes", action="store_true", help="score in one process, in many ways")
    parser.add_argument("--lm-eval", type=Path, default=ROOT / ".venv/bin/lm_eval")
    arguments = parser.parse_args()
    with work_folder(arguments, 1.2e9) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()
