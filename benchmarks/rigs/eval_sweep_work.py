"""What benchmarks.eval_sweep runs in processes of their own: experts are made, a sweep is scored.

python -m benchmarks.rigs.eval_sweep_work expert MODEL FOLDER NUMBER RANK CHANGE
python -m benchmarks.rigs.eval_sweep_work sweep REQUEST OUT
"""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECIPE = {
    "merge_method": "task_arithmetic",
    "experts": "all",
    "parameters": {"weight": 0.5},
}


def make_expert(model: Path, folder: Path, number: int, rank: int, change: float) -> None:
    """Copy a model with a product of low rank added to each matrix of its layers."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder, dirs_exist_ok=True)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    draw = torch.Generator().manual_seed(number)
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.dim() == 2 and "layers" in name:
            rows, columns = tensor.shape
            left = torch.randn(rows, rank, generator=draw)
            added = left @ torch.randn(rank, columns, generator=draw)
            added *= change * tensor.float().norm() / added.norm()
            tensors[name] = (tensor.float() + added).to(tensor.dtype)
    save_file(tensors, file, metadata={"format": "pt"})


def cast(model: Path, folder: Path, dtype: str) -> None:
    """Copy a model in another precision."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder, dirs_exist_ok=True)
    file = folder / "model.safetensors"
    tensors = {name: each.to(getattr(torch, dtype)) for name, each in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def cpu_seconds() -> float:
    """CPU seconds of this process and of all that came from it and are alive."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            ticks[int(path.parent.name)] = int(fields[11]) + int(fields[12])

    def is_ours(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return sum(own for process, own in ticks.items() if is_ours(process)) / os.sysconf("SC_CLK_TCK")


def score_suite(model: Path, path: Path) -> dict[str, Any]:
    """Score one checkpoint: the mean over all items of each benchmark, and every answer."""
    from assets.work.suite_files import load_suite
    from eval_ops.suites import Evaluator

    scores = Evaluator(load_suite(path)).score(model)
    found: dict[str, Any] = {}
    for name in scores.benchmarks:
        samples = [sample for sample in scores.samples if sample.benchmark == name]
        found[name] = {
            "acc": sum(sample.value for sample in samples) / len(samples),
            "items": {s.item: s.text if s.text is not None else s.loglikelihoods for s in samples},
        }
    return found


def ways_apart(model: Path, path: Path) -> dict[str, list[float]]:
    """Score the first benchmark of a suite in several ways; how far each is from float32.

    Of each way: the mean and the largest difference of a log-likelihood, and how many items
    have another choice.
    """
    import numpy as np
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from assets.work.suite_files import load_suite
    from eval_ops.running import make_lean
    from eval_ops.suites import harness

    (benchmark, *_) = load_suite(path).benchmarks
    (task,) = harness.build_tasks(benchmark).values()
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    lean = make_lean(HFLM)

    def load(**settings: Any) -> Any:
        return AutoModelForCausalLM.from_pretrained(model, **settings).eval()

    def answers(kind: Any, module: Any, **settings: Any) -> Any:
        lm = kind(pretrained=module, tokenizer=tokenizer, **settings)
        task.build_all_requests(rank=0, world_size=1)
        values = [value for value, _ in lm.loglikelihood(task.instances, disable_tqdm=True)]
        sizes = [len(item.choices) for item in benchmark.items]
        return np.split(np.array(values), np.cumsum(sizes)[:-1])

    half = load(dtype="auto")
    single = load(dtype=torch.float32)
    f32 = {"softmax_dtype": "float32"}
    ways = {
        "float32, batches of 8": (HFLM, single, {"batch_size": 8}),
        "float32, as a tree (ours)": (lean, single, {"batch_size": 128}),
        "lm_eval, batches of 8": (HFLM, half, {"batch_size": 8}),
        "the same, one at a time": (HFLM, half, {"batch_size": 1}),
        "the same, batches of 3": (HFLM, half, {"batch_size": 3}),
        "batches of 8, softmax in float32": (HFLM, half, {"batch_size": 8, **f32}),
        "one at a time, softmax in float32": (HFLM, half, {"batch_size": 1, **f32}),
        "the same, eager attention": (
            HFLM, load(dtype="auto", attn_implementation="eager"), {"batch_size": 1, **f32}
        ),
        "as a tree, softmax in float32 (ours)": (lean, half, {"batch_size": 128}),
    }  # fmt: skip
    right = answers(HFLM, single, batch_size=1)
    found: dict[str, list[float]] = {}
    for name, (kind, module, settings) in ways.items():
        given = answers(kind, module, **settings)
        off = np.abs(np.concatenate(given) - np.concatenate(right))
        moved = [a.argmax() != b.argmax() for a, b in zip(given, right, strict=True)]
        found[name] = [float(off.mean()), float(off.max()), float(np.sum(moved))]
    return found


def score_sweep(request: Mapping[str, Any]) -> dict[str, Any]:
    """Merge and score every candidate, and write the best; or write all, with `keep` all.

    The request has `model`, `work`, `store` (folders), `recipe` (a name), `keep`, `threads`,
    `dtype`, `change`, `lambdas`, and `way`: `whole`; `early`, so that candidates that are worse for
    sure are left; `rest`, which asks what `early` left out. A `reduced` set is chosen from the
    scores of the recipes in `known`. Returns accuracy and log-likelihoods of each candidate that
    was asked everything, and where the seconds went.
    """
    from assets.work.merging.merging import MergeJob, merge_set, point_at
    from assets.work.merging.virtual_checkpoints import materialize
    from assets.work.scoring.candidates import CandidateScorer
    from assets.work.scoring.early_stopping import score_set
    from assets.work.scoring.scoring import Scoring
    from assets.work.scoring.set_scores import SetPoints
    from assets.work.suite_files import load_suite
    from assets.work.upstream.entries import UpstreamModel
    from assets.work.upstream.pulling import pull_model
    from eval_ops.scores.gates import parse_gate
    from merge_ops.recipes import Steps
    from merge_ops.recipes.reading import parse_recipe
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore

    seconds: dict[str, list[float]] = {}
    last = time.perf_counter(), cpu_seconds()

    def took(name: str) -> None:
        nonlocal last
        now = time.perf_counter(), cpu_seconds()
        seconds.setdefault(name, []).append(round(now[0] - last[0], 2))
        seconds.setdefault(f"{name}, CPU", []).append(round(now[1] - last[1], 2))
        last = now

    name, keep, lambdas = request["recipe"], request["keep"], request["lambdas"]
    model, work = Path(request["model"]), Path(request["work"])
    dtype, raced_set = request["dtype"], request["way"] != "whole"
    store = ArtifactStore.open(Path(request["store"]).resolve().as_uri(), catalog="bench")
    experts = sorted(folder.name for folder in work.glob(f"expert?-{request['change']}-{dtype}"))
    for called, folder in {"base": model, **{each: work / each for each in experts}}.items():
        base = None if called == "base" else "base"
        pull_model(store, UpstreamModel(called, str(folder), base), Path())
    took("models into the store")
    content = {
        **RECIPE,
        "dtype": dtype,
        "base_model": "base",
        "sweep": {"lambda": lambdas},
        "suite": "cosmos",
    }
    recipe = parse_recipe(json.dumps({**content, "keep": keep}), name, f"{name}.yaml")
    points: dict[str, str | None] = {each.id: each.id for each in recipe.coefficients()}
    job = MergeJob(Steps((recipe,)), "base", "+".join(experts), points, f"{name}/merged_checkpoint")
    settings = StreamSettings()
    merged = merge_set(store, job, settings)
    point_at(store, job, merged, name)
    took("merging and writing" if keep == "all" else "planning")
    suite = load_suite(work / "suite.yaml")
    scoring = Scoring(suite, settings.device, request["threads"])
    candidates: dict[str, Any] = {}
    best, most, saved = merged.checkpoints[0], -1.0, ""
    with CandidateScorer(store, job, scoring, settings) as scorer:
        raced: dict[str, Any] = {}
        if raced_set:
            early: dict[str, Any] = {"early_stopping": True}
            if request["reduced"]:
                early["reduced_set"] = request["reduced"]
            gate = parse_gate(early if request["way"] == "early" else {})
            named = {each.coefficient: each.coefficient for each in merged.checkpoints}
            set_points = SetPoints(name, named, named, recipes=request["known"])
            found_of = score_set(store, scorer, scoring, set_points, gate)
            raced = dict(found_of.scored)
            saved = "; ".join(filter(None, [found_of.saved.to_text(), found_of.note]))
            saved += f"; {found_of.reduced}" if found_of.reduced else ""
            took("merging and scoring")
        for value, checkpoint in zip(lambdas, merged.checkpoints, strict=True):
            point = checkpoint.coefficient
            if raced_set and point not in raced:
                continue
            scores = (raced[point] if raced_set else scorer.score_point(name, point)).scores
            samples = scores.samples
            right = sum(sample.value for sample in samples) / len(samples)
            found = {sample.item: list(sample.loglikelihoods) for sample in samples}
            candidates[str(value)] = {"acc": right, "items": found}
            validation = [sample.value for sample in samples if sample.split == "validation"]
            share = sum(validation) / len(validation)
            candidates[str(value)]["validation"] = share
            if share > most:
                best, most = checkpoint, share
            if not raced_set:
                took("scoring" if keep == "all" else "merging and scoring")
    materialize(store, best.artifact, settings)
    took("writing the best")
    found = {"candidates": candidates, "seconds": seconds, "best": best.coefficient}
    return {**found, "saved": saved}


def main() -> None:
    """The command line, for benchmarks.eval_sweep alone."""
    task, *given = sys.argv[1:]
    if task == "expert":
        model, folder, number, rank, change = given
        make_expert(Path(model), Path(folder), int(number), int(rank), float(change))
        return
    if task == "cast":
        model, folder, dtype = given
        cast(Path(model), Path(folder), dtype)
        return
    if task == "suite":
        model, suite, out = given
        Path(out).write_text(json.dumps(score_suite(Path(model), Path(suite))), encoding="utf-8")
        return
    if task == "causes":
        model, suite, out = given
        found = ways_apart(Path(model), Path(suite))
        Path(out).write_text(json.dumps(found), encoding="utf-8")
        return
    request, out = given
    found = score_sweep(json.loads(request))
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
