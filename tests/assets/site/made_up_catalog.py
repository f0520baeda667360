"""A made-up catalog with everything that its site shows, and names that want to be more than text.

`HOSTILE` is in every field that a stranger writes. A browser that runs any of it sets `hacked`.
"""

import csv
import json
from pathlib import Path

from assets.site.facts import CatalogFacts, RecipeFacts
from assets.site.sections.changes import Failure
from assets.work import names
from assets.work.ranking.kept_rows import Broken
from assets.work.ranking.ranking import promote, rank
from assets.work.upstream.entries import UpstreamModel
from merge_ops.recipes import load_steps
from tests.assets.work.made_up_store import POINTS, ScoredStore

HOSTILE = (
    "\"'></script></textarea><script>window.hacked=1</script>"
    "<img src=x onerror=window.hacked=2>${window.hacked=3}{{ 7*7 }}__proto__\u2028`"
)
RECIPE = """
title: 中药合并
description: two experts
merge_method: ties
base_model: base
experts: [all]
parameters: {weight: 0.5}
sweep: {x: [0, 1, 2]}
suite: one
"""
FAILURES = (
    Failure("2026-11-24T10:00:00+00:00", "ties/merged_checkpoint", "x=9|e1+e2", f"no {HOSTILE}"),
    Failure("2026-11-16T10:00:00+00:00", "model", "e1", "the source does not answer"),
)


def write_recipe(folder: Path, text: str = RECIPE) -> RecipeFacts:
    """The recipe of the made-up store, as its file has it."""
    path = folder / "ties.yaml"
    path.write_text(text.replace("sweep: {x: [0, 1, 2]}\n", ""), encoding="utf-8")
    return RecipeFacts(load_steps(path), POINTS)


def facts_of(scored: ScoredStore, hostile: str = "") -> CatalogFacts:
    """What the folder of the made-up catalog says; `hostile` is in each of its free texts."""
    models = {
        "base": UpstreamModel("base", "../upstream/base", licence="apache-2.0"),
        "e1": UpstreamModel("e1", "hf://org/e1", "base", "full", "cc-by-nc-4.0", f"one {hostile}"),
        "e2": UpstreamModel(
            "e2",
            f"../{hostile}",
            "base",
            "lora",
            hostile or "mit",
            f"two {hostile}",
            title=f"诗词 {hostile}",
        ),
    }
    if hostile:
        models[hostile] = UpstreamModel(hostile, hostile, "base", "full", hostile, hostile)
        broken = Broken({hostile: hostile}, {hostile: hostile}, {hostile: hostile})
        object.__setattr__(scored.contest, "broken", broken)
    text = RECIPE.replace("two experts", json.dumps(hostile)) if hostile else RECIPE
    recipes = {"ties": write_recipe(scored.root, text)}
    return CatalogFacts(hostile or "team", models, recipes, scored.contest)


def filled(root: Path, hostile: str = "", items: int = 40) -> ScoredStore:
    """A store with models, candidates, a leaderboard, a champion and a model's card."""
    scored = ScoredStore(root, items)
    if hostile:
        write_hostile_suite(scored, hostile)
    scored.everything({"x=0": 0.55, "x=1": 0.9, "x=2": 0.6})
    publish_card(scored, "e1", f"---\nlicense: x\n---\n# A card {hostile}\n")
    study(scored, "e1", 3.0)
    study(scored, "e2", 2.0)
    plan(scored)
    write_imported(scored, hostile)
    rank(scored.store, scored.contest)
    promote(scored.store, scored.contest, scored.recipe, "cpu", 1)
    return scored


def write_hostile_suite(scored: ScoredStore, hostile: str) -> None:
    """The suite's file with strangers' words in its title, description, questions and choices."""
    path = scored.root / "items.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        row["prompt"] += hostile
        row["choices"] = ["red" + hostile, "blue" + hostile]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    benchmark = {"name": "b", "items": "items.jsonl", "title": hostile}
    suite = {"name": "one", "description": hostile, "benchmarks": [benchmark]}
    (scored.root / "one.yaml").write_text(json.dumps(suite), "utf-8")


def publish_card(scored: ScoredStore, name: str, card: str) -> None:
    """A model whose folder has a README, under the digest that is scored."""
    old = scored.store.ref("model", name)
    assert old is not None
    digest = "ca" + old.digest[2:]
    with scored.store.attempt("model") as attempt:
        attempt.write_bytes("README.md", card.encode())
        attempt.publish(digest)
    scored.digests[name] = digest
    scored.store.point("model", name, "model", digest, revision="r2")
    scored.model_scores(name, 0.5)


def study(scored: ScoredStore, expert: str, norm: float) -> None:
    """The study of a task vector of two layers."""
    tensors = [{"name": f"layers.{n}.w", "layer": n, "norm": norm / (n + 1)} for n in range(2)] + [
        {"name": "embed", "layer": None, "norm": 0.1}
    ]
    whole = {"norm": norm, "changed_share": 0.5}
    found = {"base": "base", "expert": expert, "tensors": tensors, **whole}
    with scored.store.attempt("task_vector") as attempt:
        attempt.write_json("study.json", found)
        digest = attempt.publish().digest
    scored.store.point("task_vector", expert, "task_vector", digest)


def plan(scored: ScoredStore) -> None:
    """A merge plan that says how both experts relate."""
    whole, other = [[1.0, 0.25], [0.25, 1.0]], [[1.0, -0.5], [-0.5, 1.0]]
    unknown = [[1.0, None], [None, 1.0]]  # a layer with an infinite number in it
    by_layer = [[0, whole], [1, unknown], [None, other]]
    found = {"interference": {"names": ["e1", "e2"], "cosine": whole, "by_layer": by_layer}}
    with scored.store.attempt("merge_plan") as attempt:
        attempt.write_json("study.json", found)
        digest = attempt.publish().digest
    scored.store.point("merge_plan", "e1+e2", "merge_plan", digest)


def write_imported(scored: ScoredStore, hostile: str) -> None:
    """Scores from elsewhere, of a model of the catalog and of another one."""
    path = scored.root / "paper.csv"
    rows = [
        ("e1", f"C-Eval {hostile}", 0.7, 100, f"card {hostile}"),
        (f"other {hostile}", "C-Eval", 1, 9, ""),
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("model", "benchmark", "score", "n", "source"), *rows])
    object.__setattr__(scored.contest, "imported", {"paper": path})


def champion_of(scored: ScoredStore) -> str:
    """The digest of the recipe's champion."""
    ref = scored.store.ref(names.champion("ties"))
    assert ref is not None
    return ref.digest
