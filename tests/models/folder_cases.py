"""Folders as people might have them: generated models, side files and indexes, right and wrong.

A case is a recipe over a base and one or two experts. Each model is a tiny Llama, Qwen2 or GPT-2
that is written in one of many ways: its config, its tensors, its files and what lies beside them
are changed by rules that are drawn (folder_rules.py). What must hold is asked of transformers
(folder_loading.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.models.folder_models import drawn, write_model
from tests.models.folder_rules import RULES

_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Case:
    """A recipe file, its models' folders, and what was done to each."""

    recipe: Path
    method: str
    models: tuple[Path, ...]
    rules: tuple[str, ...]


def write_case(rng: random.Random, folder: Path) -> Case:
    """Draw a case and write it below an empty folder."""
    kind = rng.choice(("llama", "llama", "qwen2", "gpt2"))
    tied = rng.choice((True, False, None))
    common = rng.sample(sorted(RULES), rng.choice((0, 0, 0, 1)))
    done: list[str] = []
    folders: list[Path] = []
    for number, name in enumerate(("base", "e1", "e2")):
        own = rng.sample(sorted(RULES), rng.choice((0, 0, 1, 1, 2)))
        model = drawn(kind, 10 + number, tied)
        shared = random.Random(rng.random()) if rng.random() < 0.2 else random.Random(str(common))
        for rule, draws in [*((each, shared) for each in common), *((each, rng) for each in own)]:
            RULES[rule](draws, model)
        done += [f"{name}: {rule}" for rule in (*common, *own)]
        folders.append(write_model(model, folder / name))
    method = rng.choice(("linear", "linear", "task_arithmetic", "ties", "passthrough"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.dump(_recipe(rng, method, folders), Dumper=_Dumper), encoding="utf-8")
    return Case(recipe, method, tuple(folders), tuple(done))


def _recipe(rng: random.Random, method: str, folders: list[Path]) -> dict[str, Any]:
    base, *experts = map(str, folders)
    if method == "passthrough":
        ranges = rng.choice((((0, 2), (1, 2)), ((0, 1), (0, 2)), ((0, 2), (0, 2))))
        return {
            "merge_method": method,
            "slices": [
                {"sources": [{"model": each, "layer_range": list(chosen)}]}
                for each, chosen in zip((base, experts[0]), ranges, strict=True)
            ],
        }
    models = [{"model": each, "parameters": {"weight": 0.5}} for each in experts]
    document: dict[str, Any] = {"merge_method": method, "models": models}
    if method == "linear":
        document["models"] = [{"model": base, "parameters": {"weight": 0.5}}, models[0]]
    else:
        document["base_model"] = base
    if method == "ties":
        document["parameters"] = {"density": 0.5}
    if rng.random() < 0.15:
        document["dtype"] = rng.choice(("float16", "bfloat16", "float32"))
    return document
