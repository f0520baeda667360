"""Merging and scoring a sweep: one process of ours against `mergekit-yaml` and `lm_eval` for each.

    python -m benchmarks.eval_sweep --model /models/SmolLM2-135M-Instruct --work /big/disk/bench
    python -m benchmarks.eval_sweep --model … --items 60 --theirs 2 --json results.json

Two experts of the model (made by adding small changes of low rank to its weights, the same each
time) are merged by task arithmetic with as many lambdas as there are candidates, and each candidate
is scored on questions of CosmosQA: four sentences to choose from, in groups that share a passage
(two to four questions; with `--ungrouped` the first of the file, most of which stand alone).

- Ours: one process with a store in a new folder. A candidate is merged into memory and scored there
  by the live model; the best is written at the end (`--keep all` writes each of them, and scores
  what was written).
  With `--early-stopping` candidates that are worse for sure are not asked everything.
- Theirs: for each candidate `mergekit-yaml` writes a checkpoint and `lm_eval` scores it, with the
  same questions as a task file, probabilities in float32 as ours are, and its default of everything
  else but the batch size. With `--theirs N` only N of them are run, and seconds are scaled up to
  all of them: the table says so.

Scores are compared to the last digit, and log-likelihoods item by item. In half precision these
depend on what is computed together, by both programs: each is off from float32 by about 0.2 of a
sum, so near draws may fall either way; `--dtype float32` compares programs and not the rounding.
CPU seconds count the children of a process too; peak memory is the largest of its processes.
"""

import argparse
import csv
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.rigs.contest import (
    markdown,
    need_mergekit,
    parser_for,
    ratio,
    save,
    say,
    work_folder,
)
from benchmarks.rigs.processes import ROOT, Run, added, measure
from benchmarks.rigs.recipes import recipe

DATA = "cosmosqa/valid.csv"
PROMPT = "{context}\nQuestion: {question}\nAnswer:"
CHOICES = 4
EXPERTS = 2
RANK, CHANGE = 8, 0.02
"""Each matrix of an expert differs by a product of that rank, of that share of its norm: so little
that candidates hardly differ. With ten times as much the larger lambdas ruin the model."""
FIRST, SECOND = "bench", "raced"
BETWEEN = 0.05
"""The second sweep's points lie so far beyond those of the first."""
COLUMNS = ("program", "candidates run", "wall s", "CPU s", "peak MiB", "disk MB", "times faster",
           "times less CPU")  # fmt: skip


def lambdas(candidates: int) -> list[float]:
    """The points of the sweep."""
    return [round(0.1 * (number + 1), 1) for number in range(candidates)]


def read_questions(path: Path, items: int, grouped: bool = False) -> list[dict[str, Any]]:
    """Questions of CosmosQA's file, as items of a suite; every second is for testing.

    The first of the file, most of whose passages have one question; or, `grouped`, those of the
    passages with the most questions, which have two to four. What the file asks twice is asked
    once here.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list({PROMPT.format_map(row): row for row in csv.DictReader(file)}.values())
    if grouped:
        questions = Counter(row["context"] for row in rows)
        rows.sort(key=lambda row: (-questions[row["context"]], row["context"]))
    rows = [row for row in rows if len({row[f"answer{n}"] for n in range(CHOICES)}) == CHOICES]
    return [
        {
            "id": f"cosmos-{number:04}",
            "split": ("validation", "test")[number % 2],
            "prompt": PROMPT.format_map(row),
            "choices": [row[f"answer{place}"] for place in range(CHOICES)],
            "answer": int(row["label"]),
        }
        for number, row in enumerate(rows[:items])
    ]


def write_inputs(work: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Write items, our suite, their task, and the recipes; the experts are made where they lack."""
    work.mkdir(parents=True, exist_ok=True)
    questions = read_questions(arguments.data, arguments.items, not arguments.ungrouped)
    items = work / "items.jsonl"
    items.write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    suite = work / "suite.yaml"
    benchmark = {"name": "cosmos", "items": items.name, "delimiter": " "}
    suite.write_text(json.dumps({"name": "cosmos", "benchmarks": [benchmark]}), encoding="utf-8")
    task = {
        "task": "cosmos",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(items)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (work / "tasks").mkdir(exist_ok=True)
    (work / "tasks" / "cosmos.yaml").write_text(json.dumps(task), encoding="utf-8")
    experts = [
        work / f"expert{number}-{arguments.change}-{arguments.dtype}" for number in range(EXPERTS)
    ]
    for number, folder in enumerate(experts):
        if not (folder / "config.json").is_file():
            command = [sys.executable, "-m", "benchmarks.rigs.eval_sweep_work", "expert"]
            changed = [str(number), str(RANK), str(arguments.change)]
            measure([*command, str(arguments.model), str(folder), *changed])
    for value in lambdas(arguments.candidates):
        content = json.loads(
            recipe("task_arithmetic", arguments.model, experts, **{"lambda": value})
        )
        text = json.dumps({**content, "dtype": arguments.dtype})
        (work / f"lambda-{value}.yaml").write_text(text, encoding="utf-8")
    return {"suite": suite, "items": items, "tasks": work / "tasks"}


def ours(
    work: Path, arguments: argparse.Namespace, recipe: str = FIRST, way: str = "whole"
) -> tuple[Run, dict[str, Any], float]:
    """All candidates in one process: its cost, what it found, and the bytes it left on the disk.

    The first recipe begins with an empty store; `recipe` sweeps other points in the same one.
    """
    store, out = work / "store", work / f"{recipe}-{way}.json"
    if recipe == FIRST:
        shutil.rmtree(store, ignore_errors=True)
    points = lambdas(arguments.candidates)
    if recipe != FIRST:
        points = [round(value + BETWEEN, 2) for value in points]
    request = {
        "recipe": recipe,
        "way": way,
        "model": str(arguments.model),
        "work": str(work),
        "store": str(store),
        "keep": arguments.keep,
        "threads": arguments.threads or 0,
        "dtype": arguments.dtype,
        "change": arguments.change,
        "lambdas": points,
        "known": [] if recipe == FIRST else [FIRST],
        "reduced": None if recipe == FIRST else arguments.reduced,
    }
    command = [sys.executable, "-m", "benchmarks.rigs.eval_sweep_work", "sweep"]
    run = measure([*command, json.dumps(request), str(out)])
    return run, json.loads(out.read_text(encoding="utf-8")), bytes_of(store)


def raced(
    work: Path, arguments: argparse.Namespace, of_theirs: Run | None, scale: float
) -> list[dict[str, Any]]:
    """A second sweep in the same store with a reduced set, and then asked everything.

    The first sweep's scores say which items are asked first. What the second costs is compared
    with theirs, and its champion with that of whole scores.
    """
    run, found, _ = ours(work, arguments, SECOND, "early")
    say(f"raced: {run.wall:.1f} s, CPU {run.cpu:.1f} s; {found['saved']}")
    whole_run, whole, _ = ours(work, arguments, SECOND, "rest")
    say(f"the rest: {whole_run.wall:.1f} s, CPU {whole_run.cpu:.1f} s")
    same = "the same" if found["best"] == whole["best"] else "another"
    faster = f", {of_theirs.wall * scale / run.wall:.1f} times faster" if of_theirs else ""
    print(f"\na second sweep, raced: {run.wall:.1f} s{faster}; {found['saved']}")
    print(f"its champion is {found['best']}; by whole scores {whole['best']}: {same}")
    accuracies = {value: each["validation"] for value, each in whole["candidates"].items()}
    print(f"validation by lambda, asked everything: {json.dumps(accuracies)}")
    told = {key: found[key] for key in ("best", "saved", "seconds")}
    rest = {"best": whole["best"], "validation": accuracies}
    return [{"run": asdict(run), **told}, {"run": asdict(whole_run), **rest}]


def theirs(
    work: Path, value: float, arguments: argparse.Namespace
) -> tuple[Run, dict[str, Any], float]:
    """One candidate by two programs: their cost, what they found, and the bytes of the disk."""
    out, results = work / "merged", work / "results"
    for folder in (out, results):
        shutil.rmtree(folder, ignore_errors=True)
    merged = measure([str(arguments.mergekit), str(work / f"lambda-{value}.yaml"), str(out)])
    say(f"  mergekit-yaml: {merged.wall:.1f} s, CPU {merged.cpu:.1f} s")
    model = f"pretrained={out},softmax_dtype=float32"
    scored = measure(
        [
            *(str(arguments.lm_eval), "run", "--model", "hf", "--model_args", model),
            *("--tasks", "cosmos", "--include_path", str(work / "tasks"), "--log_samples"),
            *("--batch_size", str(arguments.batch_size), "--output_path", str(results)),
            *("--device", "cpu"),
        ]
    )
    say(f"  lm_eval: {scored.wall:.1f} s, CPU {scored.cpu:.1f} s")
    (summary,) = results.rglob("results_*.json")
    (log,) = results.rglob("samples_*.jsonl")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = {
        "acc": json.loads(summary.read_text(encoding="utf-8"))["results"]["cosmos"]["acc,none"],
        "items": {
            row["doc"]["id"]: [float(pair[0]) for pair in row["filtered_resps"]] for row in rows
        },
    }
    return added([merged, scored]), found, bytes_of(out)


def bytes_of(folder: Path) -> float:
    """Bytes of the files of a folder."""
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))


def compare(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """How far two programs' answers to one candidate are apart."""
    pairs = [(mine["items"][name], other["items"][name]) for name in other["items"]]

    def best(values: Sequence[float]) -> int:
        return max(range(len(values)), key=lambda place: values[place])

    return {
        "ours": mine["acc"],
        "theirs": other["acc"],
        "items": len(pairs),
        "choices apart": sum(best(a) != best(b) for a, b in pairs),
        "largest difference": max(
            abs(x - y) for a, b in pairs for x, y in zip(a, b, strict=True)
        ),
    }  # fmt: skip


def benchmark(work: Path, arguments: argparse.Namespace) -> None:
    """Both programs, the table of cost, and the table of scores."""
    cast = work / f"model-{arguments.dtype}"
    if not (cast / "config.json").is_file():
        command = [sys.executable, "-m", "benchmarks.rigs.eval_sweep_work", "cast"]
        measure([*command, str(arguments.model), str(cast), arguments.dtype])
    arguments.model = cast
    write_inputs(work, arguments)
    points = lambdas(arguments.candidates)
    first_way = "early" if arguments.early_stopping else "whole"
    mine, found, mine_bytes = ours(work, arguments, way=first_way)
    say(f"ours: {mine.wall:.1f} s, CPU {mine.cpu:.1f} s, peak {mine.peak:.0f} MiB")
    runs: list[Run] = []
    other_bytes = 0.0
    scores: list[dict[str, Any]] = []
    for value in points[: arguments.theirs]:
        run, answers, nbytes = theirs(work, value, arguments)
        runs.append(run)
        other_bytes = nbytes * len(points)
        if str(value) in found["candidates"]:  # not left early
            scores.append({"lambda": value, **compare(found["candidates"][str(value)], answers)})
    if not runs:
        print(f"best of ours: {found['best']}. {found['saved']}")
        print(f"where ours went: {json.dumps(found['seconds'])}")
        if arguments.reduced:
            raced(work, arguments, None, 1)
        return
    whole = added(runs)
    scale = len(points) / len(runs)
    rows = [
        ["ronghe", str(len(points)), f"{mine.wall:.1f}", f"{mine.cpu:.1f}", f"{mine.peak:.0f}",
         f"{mine_bytes / 1e6:.0f}", "", ""],
        ["mergekit-yaml + lm_eval", str(len(runs)), f"{whole.wall * scale:.1f}",
         f"{whole.cpu * scale:.1f}", f"{whole.peak:.0f}", f"{other_bytes / 1e6:.0f}",
         ratio(whole.wall * scale, mine.wall), ratio(whole.cpu * scale, mine.cpu)],
    ]  # fmt: skip
    print(f"\n{markdown(COLUMNS, rows)}\n")
    if scale > 1:
        print(f"their seconds are those of {len(runs)} candidates, times {scale:g}\n")
    names = list(scores[0]) if scores else []
    print(markdown(names, [[f"{value:.6g}" for value in each.values()] for each in scores]))
    print(f"best of ours: {found['best']}. {found['saved']}")
    print(f"\nwhere ours went: {json.dumps(found['seconds'])}", flush=True)
    second = raced(work, arguments, whole, scale) if arguments.reduced else []
    save(arguments.json, {"items": arguments.items, "candidates": len(points), "keep":
                          arguments.keep, "ours": asdict(mine), "ours_disk": mine_bytes,
                          "theirs": [asdict(run) for run in runs], "theirs_disk": other_bytes,
                          "scores": scores, "seconds": found["seconds"],
                          "raced": second})  # fmt: skip


def main() -> None:
    """The command line."""
    parser = parser_for(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint's folder")
    data = os.environ.get("RONGHE_TEST_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(data) / DATA, help="CosmosQA's valid.csv")
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--ungrouped", action="store_true", help="the first items of the file")
    parser.add_argument("--candidates", type=int, default=12)
    parser.add_argument(
        "--theirs", type=int, help="run so many of theirs, 0 too, and scale (default: all)"
    )
    parser.add_argument("--dtype", default="bfloat16", help="of the model and all that is merged")
    parser.add_argument("--keep", choices=("champion", "all"), default="champion")
    parser.add_argument(
        "--early-stopping", action="store_true", help="of ours: who is worse for sure is left"
    )
    parser.add_argument(
        "--reduced", type=float, help="race a second sweep, by a reduced set of so large a share"
    )
    parser.add_argument("--change", type=float, default=CHANGE, help="how far experts are off")
    parser.add_argument("--threads", type=int, help="of ours, for scoring (default: all cores)")
    parser.add_argument("--batch-size", type=int, default=16, help="of lm_eval")
    parser.add_argument("--lm-eval", type=Path, default=ROOT / ".venv/bin/lm_eval")
    arguments = parser.parse_args()
    need_mergekit(parser, arguments)
    if not arguments.data.is_file():
        parser.error(f"no file {arguments.data}; give CosmosQA's valid.csv with --data")
    arguments.model = arguments.model.resolve()
    written = EXPERTS + 3 + (arguments.candidates if arguments.keep == "all" else 2)
    size = bytes_of(arguments.model) * (2 if arguments.dtype == "float32" else 1)
    with work_folder(arguments, size * 2 * written + 50e6) as work:
        benchmark(work, arguments)


if __name__ == "__main__":
    main()
