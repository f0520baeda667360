"""How often `ronghe inspect --against` is right: merges of real fine-tunes, made for it.

    python -m benchmarks.ownership DATA WORK [--cases 400] [--open-cases 80]

DATA is the folder of real data that tests read; WORK keeps the trained models and the results, one
line a case, so that a run goes on where it was stopped. Each case is one merge (a method, two to
four experts, weights, and what is done to the result), asked for its members, for experts that are
not in it, and for models trained on the same kind of text or on the very same text.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from scipy.stats import beta

from benchmarks.rigs.ownership_work import Trained, kinds_of_text, train_family, trained_further
from merge_ops.checkpoints import Checkpoint, open_checkpoint
from merge_ops.jobs.assembly import merge
from merge_ops.plans import plan_merge
from merge_ops.provenance.inspecting import evidence_in
from merge_ops.provenance.task_regression import regress_tasks
from merge_ops.recipes import check_recipe
from merge_ops.stream import StreamSettings

WEIGHED: dict[str, dict[str, Any]] = {
    "linear": {}, "task_arithmetic": {}, "ties": {"density": 0.2}, "breadcrumbs": {"density": 0.5},
    "breadcrumbs_ties": {"density": 0.5}, "dare_linear": {"density": 0.3},
    "dare_ties": {"density": 0.3}, "della": {"density": 0.5}, "della_linear": {"density": 0.5},
    "consensus_ta": {}, "consensus_ties": {"density": 0.5}, "multislerp": {}, "pcb": {},
}  # fmt: skip
"""Methods with a weight for each expert."""
OTHERS: dict[str, dict[str, Any]] = {
    "slerp": {"t": 0.4}, "karcher": {}, "model_stock": {}, "sce": {}, "iso_c": {}, "tsvm": {},
    "magmax": {}, "emr": {}, "arcee_fusion": {}, "ram": {},
}  # fmt: skip
"""Methods that choose the shares themselves."""
PAIRED = ("slerp",)
ALONE = ("arcee_fusion",)
TREATMENTS = ("none", "bfloat16", "int8", "further")
FURTHER_STEPS = 8
SHARES = (0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True)
class Case:
    """A case is a merge: its members with their weights, and what was done to the result.

    `missing` are members that are not among the candidates. None is a weight that a method chose.
    """

    number: int
    method: str
    members: dict[str, float | None]
    treatment: str
    missing: tuple[str, ...] = ()


def draw_cases(count: int, experts: Sequence[str], opened: bool) -> Iterator[Case]:
    """Draw cases, the same every time; with `opened` the member of most weight is missing."""
    draw = random.Random(7 if opened else 5)
    methods = [*WEIGHED, *WEIGHED, *OTHERS]
    for number in range(count):
        method = methods[number % len(methods)]
        size = 2 if method in PAIRED else 1 if method in ALONE else draw.choice((2, 3, 4))
        members = draw.sample(experts, max(size, 2 if opened and method not in ALONE else size))
        weights: list[float | None] = [None] * len(members)
        if method in WEIGHED:
            weights = [SHARES[number // 5 % len(SHARES)], *_shares(draw, len(members) - 1)]
        turn = number + number // len(methods)  # so that each method meets each treatment
        treatment = TREATMENTS[turn % len(TREATMENTS)]
        named = dict(zip(members, weights, strict=True))
        missing = (max(named, key=lambda name: named[name] or 0.0),) if opened else ()
        yield Case(number, method, named, treatment, missing)


def _shares(draw: random.Random, count: int) -> list[float]:
    return [draw.choice((0.2, 0.3, 0.5)) for _ in range(count)]


def make_suspect(case: Case, family: Trained, out: Path, data: Path) -> Path:
    """Merge a case and treat the result; returns the folder."""
    shutil.rmtree(out, ignore_errors=True)
    base = str(family.base)
    settings = WEIGHED.get(case.method, {})
    models = [
        {
            "model": str(family.experts[name]),
            "parameters": {**({"weight": weight} if weight is not None else {}), **settings},
        }
        for name, weight in case.members.items()
    ]
    if case.method == "slerp":
        first, second = case.members
        models = [{"model": str(family.experts[second])}]
        base = str(family.experts[first])
        models.insert(0, {"model": base})
    if case.method == "linear":  # of task vectors: the base takes what is left
        left = 1.0 - sum(weight or 0.0 for weight in case.members.values())
        models.append({"model": base, "parameters": {"weight": left}})
    document = {
        "merge_method": case.method,
        "models": models,
        "parameters": OTHERS.get(case.method),
    }
    if case.method not in ("linear", "karcher", "multislerp"):
        document["base_model"] = base
    document = {key: value for key, value in document.items() if value}
    recipe = check_recipe(document, "case", "case")
    opened = {name: open_checkpoint(name) for name in recipe.referenced_models}
    merge(plan_merge(recipe, opened), out, StreamSettings(threads=1, device="cpu"))
    weights = out / "model.safetensors"
    tensors = load_file(weights)
    if case.treatment == "bfloat16":
        tensors = {name: each.bfloat16().float() for name, each in tensors.items()}
    if case.treatment == "int8":
        tensors = {name: _int8(each) for name, each in tensors.items()}
    if case.treatment in ("bfloat16", "int8"):
        save_file(tensors, weights, metadata={"format": "pt"})
    if case.treatment == "further":
        texts = kinds_of_text(data)
        kind = sorted(texts)[case.number % len(texts)]
        ids = torch.tensor(list(texts[kind].encode())[-50_000:])
        trained_further(out, ids, FURTHER_STEPS, 900 + case.number, out)
    return out


def _int8(tensor: torch.Tensor) -> torch.Tensor:
    """A matrix in whole numbers of 8 bits, row by row by its largest entry, and back."""
    if tensor.dim() < 2:
        return tensor
    scale = tensor.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (tensor / scale).round().clamp(-127, 127) * scale


def candidates_of(case: Case, family: Trained) -> dict[str, tuple[Path, str]]:
    """Return the candidates: name → folder, and what each is to the merge."""
    found: dict[str, tuple[Path, str]] = {}
    for name in case.members:
        if name not in case.missing:
            found[name] = family.experts[name], "member"
    kinds = {name.removesuffix("-2") for name in case.members}
    for name, folder in family.experts.items():
        if name in case.members:
            continue
        same = name.removesuffix("-2") in kinds
        if same or len([1 for _, role in found.values() if role == "stranger"]) < 2:
            found[name] = folder, "same kind of text" if same else "stranger"
    for name, folder in family.twins.items():
        if name in case.members:
            found[f"{name}-twin"] = folder, "same text"
            break
    return found


def run_case(
    case: Case, family: Trained, work: Path, data: Path, opened: dict[str, Checkpoint]
) -> dict[str, Any]:
    """Merge a case, inspect it, and return what was said of each candidate."""
    suspect = open_checkpoint(str(make_suspect(case, family, work / "suspect", data)))
    chosen = candidates_of(case, family)
    models: list[Checkpoint] = []
    for name, (folder, _) in chosen.items():
        if name not in opened:
            opened[name] = open_checkpoint(str(folder))
        models.append(opened[name])
    settings = StreamSettings(threads=1, device="cpu")
    tasks = regress_tasks(opened["base"], models, suspect, settings)
    told = []
    for (name, (_, role)), each in zip(chosen.items(), evidence_in(tasks), strict=True):
        numbers = {key: getattr(each, key) for key in ("weight", "score", "agreement", "spread")}
        told.append(
            {
                "name": name,
                "role": role,
                "true": case.members.get(name),
                "answer": each.answer,
                "effect": each.effect,
                **numbers,
            }
        )
    return {**asdict(case), "explained": tasks.whole.explained, "told": told}


def table_of(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table: verdicts by what a candidate is to the merge."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        for each in result["told"]:
            if each["role"] != "member":
                rows.setdefault(f"not in it: {each['role']}", []).append(each)
                rows.setdefault("not in it: all", []).append(each)
                continue
            weight = each["true"]
            share = f"weight {weight:g}" if weight is not None else "weight chosen by the method"
            if weight is not None:
                rows.setdefault("member: all weights of 0.1 and more", []).append(each)
                rows.setdefault(f"member: treated {result['treatment']}", []).append(each)
            rows.setdefault(f"member: {share}", []).append(each)
            rows.setdefault(f"member: by {result['method']}", []).append(each)
    lines = ["| candidate | n | in it | 95 % | not found | cannot be told |"]
    lines.append("|---|---:|---:|---|---:|---:|")
    for name in sorted(rows):
        lines.append(_line(name, [each["answer"] for each in rows[name]]))
    return lines


def _line(name: str, answers: Sequence[str]) -> str:
    count, hits = len(answers), answers.count("in it")
    low = beta.ppf(0.025, hits + 0.5, count - hits + 0.5) if hits else 0.0
    high = beta.ppf(0.975, hits + 0.5, count - hits + 0.5) if hits < count else 1.0
    rest = [answers.count(each) / count for each in ("not found", "cannot be told")]
    shares = f"{rest[0]:.1%} | {rest[1]:.1%}"
    return f"| {name} | {count} | {hits / count:.1%} | {low:.1%} … {high:.1%} | {shares} |"


def main() -> None:
    """Run the cases that are not there yet, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cases", type=int, default=400)
    parser.add_argument("--open-cases", type=int, default=80)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    family = train_family(arguments.data, arguments.work / "family")
    opened = {"base": open_checkpoint(str(family.base))}
    for opened_set in (False, True):
        count = arguments.open_cases if opened_set else arguments.cases
        file = arguments.work / f"{'open' if opened_set else 'closed'}.jsonl"
        results = (
            [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        )
        done = {each["number"] for each in results}
        for case in draw_cases(count, list(family.experts), opened_set):
            if case.number in done:
                continue
            results.append(run_case(case, family, arguments.work, arguments.data, opened))
            with file.open("a") as out:
                out.write(json.dumps(results[-1]) + "\n")
        what = (
            "the strongest member is no candidate" if opened_set else "all members are candidates"
        )
        sys.stdout.write(
            f"\n{len(results)} cases, {what}\n\n" + "\n".join(table_of(results)) + "\n"
        )


if __name__ == "__main__":
    main()
