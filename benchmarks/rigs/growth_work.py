"""What the rows of benchmarks/growth.py run, each in a process of its own: `STAGE FOLDER SIZE …`.

A row has a stage that prepares a folder and one that is measured, and both run in the checkout that
is measured. So only what the earlier checkout has too is imported here, inside functions. The
measured stage writes the seconds of the work itself, without Python's start, to seconds.json.
"""

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

ITEMS = {"validation": 50, "test": 100}
BENCHMARKS = ("first", "second", "third")
ANSWERED = {"choices": ["a", "b"], "answer": 0}


@contextmanager
def clocked(folder: Path, **told: object) -> Iterator[dict[str, object]]:
    """Time what is inside, and write that down with what else is told."""
    started, before = time.perf_counter(), time.process_time()
    yield told
    cpu = time.process_time() - before
    seconds = {"seconds": time.perf_counter() - started, "cpu": cpu, **told}
    (folder / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")


def write_catalog(folder: Path, experts: int, recipes: dict[str, str]) -> None:
    """A catalog of one base, its experts, one suite, and recipes as YAML."""
    names = [f"e{number:04d}" for number in range(experts)]
    models = ["models:", "  - {name: base, source: /models/base}"]
    models += [f"  - {{name: {name}, source: /models/{name}, base: base}}" for name in names]
    files = {"models.yaml": "\n".join(models) + "\n"}
    files |= {f"recipes/{name}.yaml": text for name, text in recipes.items()}
    suite = [f"  - {{name: {name}, items: ../items/{name}.jsonl}}" for name in BENCHMARKS]
    files["suites/three.yaml"] = "\n".join(["name: three", "benchmarks:", *suite]) + "\n"
    for name in BENCHMARKS:
        files[f"items/{name}.jsonl"] = "".join(
            json.dumps(
                {"id": each, "split": split, "prompt": each, "choices": ["a", "b"], "answer": 0}
            )
            + "\n"
            for split, each in items()
        )
    for name, text in files.items():
        path = folder / "catalog" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    os.environ["RONGHE_CATALOG"] = str(folder / "catalog")
    os.environ["RONGHE_STORE"] = str(folder / "store")


def items() -> Iterator[tuple[str, str]]:
    """Split and id of every item of a benchmark."""
    for split, count in ITEMS.items():
        for number in range(count):
            yield split, f"{split}-{number}"


def prepare_definitions(folder: Path, experts: int) -> None:
    """All pairs of so many experts, at three coefficients, averaged too, and all at once."""
    write_catalog(
        folder,
        experts,
        {
            "pairs": "merge_method: task_arithmetic\nexperts: all-pairs\nsuite: three\n"
            "sweep: {lambda: [0.3, 0.6, 1.0]}\nparameters: {weight: 1.0}\n",
            "average": "merge_method: linear\nexperts: all-pairs\nsuite: three\n"
            "parameters: {weight: 1.0}\n",
            "whole": "merge_method: linear\nexperts: all\nparameters: {weight: 1.0}\n",
        },
    )


def definitions(folder: Path, _: int) -> None:
    """What each step's process pays before it does anything."""
    os.environ["RONGHE_CATALOG"] = str(folder / "catalog")
    import dagster as dg

    from orchestration.definitions import build_definitions
    from orchestration.settings import load_settings

    with clocked(folder):
        loaded = build_definitions(load_settings())
        loaded.get_repository_def()
        dg.Definitions.validate_loadable(loaded)


def prepare_champions(folder: Path, recipes: int) -> None:
    """So many recipes of 200 points each: 20 sets at ten coefficients, all scored."""
    pairs = [f"[e{a:04d}, e{b:04d}]" for a in range(4) for b in range(a + 1, 10)]
    sets = ", ".join(pairs[:20])
    text = (
        f"merge_method: task_arithmetic\nexperts: [{sets}]\nsuite: three\n"
        f"sweep: {{lambda: [{', '.join(f'{0.1 * k:.1f}' for k in range(1, 11))}]}}\n"
        "parameters: {weight: 1.0}\n"
    )
    write_catalog(folder, 10, {f"recipe_{number:02d}": text for number in range(recipes)})
    score_all(folder)


def prepare_leaderboard(folder: Path, experts: int) -> None:
    """All pairs of so many experts, scored and ranked; then one of them is another checkpoint."""
    recipe = "merge_method: linear\nexperts: all-pairs\nsuite: three\nparameters: {weight: 1.0}\n"
    write_catalog(folder, experts, {"average": recipe})
    contest, store = score_all(folder)
    from assets.work.ranking.ranking import rank

    rank(store, contest)
    recipe = contest.recipes[0]
    name = next(iter(recipe.points))
    point_at(store, contest, "average/merged_checkpoint", "average/scores", name, "again")


def score_all(folder: Path) -> tuple[Any, Any]:
    """Put scores of every model and candidate of the catalog into the store."""
    contest, store = opened(folder)
    for name in (*contest.bases, *contest.experts):
        point_at(store, contest, "model", "model_scores/three", name, name)
    for recipe in contest.recipes:
        for key in recipe.points:
            asset = f"{recipe.name}/merged_checkpoint"
            point_at(store, contest, asset, f"{recipe.name}/scores", key, f"{recipe.name} {key}")
    return contest, store


def opened(folder: Path) -> tuple[Any, Any]:
    """The contest of the folder's catalog, and its store."""
    from orchestration.catalogs import load_catalog
    from orchestration.definitions import contest_of
    from resources.store import ArtifactStore

    store = ArtifactStore.open((folder / "store").as_uri())
    return contest_of(load_catalog(folder / "catalog")), store


def point_at(
    store: Any, contest: Any, merged: str, scored: str, partition: str, identity: str
) -> None:
    """Publish a checkpoint of no weight and made-up scores of it, and point both names there."""
    from blake3 import blake3

    from eval_ops.scores import scores_digest
    from eval_ops.scores.scores import SuiteScores

    suite = suite_of(contest.suites["three"])
    digest = blake3(identity.encode()).hexdigest()
    publish(store, "checkpoint", digest, {"config.json": b"{}"})
    samples = answers(identity)
    made = SuiteScores("three", suite.digest, summed(samples), samples, {"lm_eval": "0"})
    files = {
        "scores.json": made.to_json().encode(),
        "samples.parquet": made.samples_to_parquet(),
    }
    named = {
        "checkpoint": {"kind": "checkpoint", "digest": digest},
        "suite": {"name": "three", "digest": suite.digest},
    }
    of_scores = scores_digest(digest, suite.digest)
    publish(store, "scores", of_scores, files, named)
    store.point(merged, partition, "checkpoint", digest)
    store.point(scored, partition, "scores", of_scores)


@lru_cache
def suite_of(path: Path) -> Any:
    """Read the suite, once."""
    from assets.work.suite_files import load_suite

    return load_suite(path)


def publish(
    store: Any, kind: str, digest: str, files: dict[str, bytes], named: dict[str, Any] | None = None
) -> None:
    """Publish an artifact of small files."""
    with store.attempt(kind) as attempt:
        for name, data in files.items():
            attempt.write_bytes(name, data)
        attempt.publish(digest, **(named or {}))


def answers(identity: str) -> tuple[Any, ...]:
    """Right and wrong answers of a checkpoint, by a generator that its identity seeds."""
    from eval_ops.scores.scores import Sample

    draw = random.Random(identity)
    skill = {name: draw.uniform(0.3, 0.9) for name in BENCHMARKS}
    return tuple(
        Sample(name, split, item, float(draw.random() < skill[name]), 0, 0, (-1.0, -2.0))
        for name in BENCHMARKS
        for split, item in items()
    )


def summed(samples: tuple[Any, ...]) -> tuple[Any, ...]:
    """Scores that those samples give."""
    from eval_ops.scores.scores import summarize

    return summarize(samples, "acc", "1")


def champions(folder: Path, _: int) -> None:
    """Put every recipe's best before its gate, one after the other, as a refresh does."""
    from assets.work.ranking.ranking import promote

    contest, store = opened(folder)
    with clocked(folder):
        for recipe in contest.recipes:
            promote(store, contest, recipe, "cpu", 1)


def leaderboard(folder: Path, _: int) -> None:
    """Rank what is there, of which one row is new."""
    from assets.work.ranking.ranking import rank

    contest, store = opened(folder)
    with clocked(folder) as told:
        told["rows"] = sum(map(len, rank(store, contest).tables.values()))


def prepare_ancestry(folder: Path, partitions: int) -> None:
    """A tenth as many models, and merges of pairs of them whose manifests are of a real size."""
    from blake3 import blake3

    from resources.store import ArtifactStore

    store = ArtifactStore.open((folder / "store").as_uri(), catalog="team")
    digests: dict[str, str] = {}
    for number in range(partitions // 10):
        name = f"e{number:04d}" if number else "base"
        card = f"---\nlicense: apache-2.0\n---\n{name}\n".encode()
        with store.attempt("model") as attempt:
            attempt.write_bytes("README.md", card)
            artifact = attempt.publish()
        digests[name] = artifact.digest
        store.point("model", name, "model", artifact.digest, licence="apache-2.0")
    names = list(digests)[1:]
    tensors = [f"model.layers.{layer}.{part}.weight" for layer in range(28) for part in range(10)]
    for number in range(partitions):
        pair = [names[number % len(names)], names[(number * 7 + 1) % len(names)]]
        digest = blake3(f"merge {number}".encode()).hexdigest()
        parents = [{"digest": digests["base"], "relation": "base", "weight": None}]
        parents += [{"digest": digests[n], "relation": "expert", "weight": 0.5} for n in pair]
        store.publish_virtual("checkpoint", digest, ancestry=parents, tensors=tensors)
        used = {name: digests[name] for name in ("base", *pair)}
        store.point("r/merged_checkpoint", f"x|{number}", "checkpoint", digest, models=used)
    store.point("r/champion", None, "checkpoint", digest)


def lineage(folder: Path, _: int) -> None:
    """What a champion was made of."""
    from assets.work.ranking.licensing import standing_of
    from resources.store import ArtifactStore

    store = ArtifactStore.open((folder / "store").as_uri(), catalog="team")
    with clocked(folder) as told:
        told["nodes"] = len(standing_of(store, "r/champion").ancestry.nodes)


def impact(folder: Path, _: int) -> None:
    """What the base model went into: everything."""
    from assets.work.records.lineage import impact as find
    from resources.store import ArtifactStore

    store = ArtifactStore.open((folder / "store").as_uri(), catalog="team")
    with clocked(folder) as told:
        told["descendants"] = len(find(store, "base"))


def ls(folder: Path, _: int) -> None:
    """List every name while one expert is withdrawn: all refs, and all manifests twice."""
    from assets.work.records.listing import list_names
    from resources.store import ArtifactStore

    store = ArtifactStore.open((folder / "store").as_uri(), catalog="team")
    ref = store.ref("model", "e0001")
    store.marks.withdraw(ref.digest if ref is not None else "", "to see what it costs")
    with clocked(folder) as told:
        listed = list_names(store)
        told["names"] = len(listed)
        told["withdrawn"] = sum(bool(each.withdrawn) for each in listed)


def picture(folder: Path, experts: int) -> None:
    """Make the metadata of a merge_plan of so many experts, picture and tables."""
    from assets.merge_plans import _metadata
    from resources.store import ArtifactStore

    draw = random.Random(0)
    cosine = [[draw.uniform(-0.1, 0.9) for _ in range(experts)] for _ in range(experts)]
    conflict = [[draw.uniform(0, 0.5) for _ in range(experts)] for _ in range(experts)]
    names = [f"e{number:04d}" for number in range(experts)]
    store = ArtifactStore.open((folder / "store").as_uri())
    publish(store, "merge_plan", "0" * 64, {"study.json": b"{}"})
    findings = {
        "interference": {"names": names, "cosine": cosine, "sign_conflict": conflict},
        "warnings": [],
        "bytes_read": 1,
        "bytes_of_one_output": 1,
    }
    from dagster import build_asset_context

    from assets.work.merging.studying import Study

    log, digest = build_asset_context().log, "0" * 64
    study = Study(store.get("merge_plan", digest), findings, True, digest)
    with clocked(folder) as told:
        shown = _metadata(log, "base", study)
        told["bytes of the event"] = sum(len(repr(value)) for value in shown.values())


def idle(folder: Path, looks: int) -> None:
    """So many ticks of the schedule that looks at the upstream models, one after the other.

    Files and bytes of Dagster's home are told, once after a third of the looks and at the end.
    """
    (folder / "models" / "base").mkdir(parents=True)
    (folder / "models" / "base" / "config.json").write_text("{}", encoding="utf-8")
    (folder / "catalog" / "recipes").mkdir(parents=True)
    listed = f"models:\n  - {{name: base, source: {folder / 'models' / 'base'}}}\n"
    (folder / "catalog" / "models.yaml").write_text(listed, encoding="utf-8")
    os.environ["RONGHE_CATALOG"] = str(folder / "catalog")
    os.environ["RONGHE_STORE"] = str(folder / "store")
    import dagster as dg

    from orchestration.definitions import build_definitions
    from orchestration.settings import load_settings

    home = folder / "dagster"
    home.mkdir()
    definitions = build_definitions(load_settings())
    schedule = definitions.resolve_schedule_def("observe_upstream_models_schedule")
    job = definitions.resolve_job_def("observe_upstream_models")
    opened = dg.DagsterInstance.from_config(str(folder), write_home(folder))
    with opened as instance, clocked(folder) as told:
        for number in range(looks):
            context = dg.build_schedule_context(
                instance=instance, scheduled_execution_time=datetime.now(UTC)
            )
            if not schedule.evaluate_tick(context).run_requests:
                raise SystemExit("the schedule asked for no look")
            job.execute_in_process(instance=instance, raise_on_error=False)
            if number + 1 in (looks // 3, looks):
                files = [each for each in home.rglob("*") if each.is_file()]
                at = f"after {number + 1}"
                told[f"files {at}"] = len(files)
                told[f"bytes {at}"] = sum(each.stat().st_size for each in files)


def write_home(folder: Path) -> str:
    """Dagster's instance with everything below the folder; the name of its file."""
    text = f"storage:\n  sqlite:\n    base_dir: {folder / 'dagster'}\n"
    text += "telemetry:\n  enabled: false\n"
    (folder / "dagster.yaml").write_text(text, encoding="utf-8")
    return "dagster.yaml"


def main() -> None:
    """The command line: STAGE FOLDER SIZE."""
    stage, folder, size = sys.argv[1:]
    if stage.startswith("prepare"):
        os.fsync = lambda _: None  # what is only prepared need not outlive the machine
    globals()[stage](Path(folder), int(size))


if __name__ == "__main__":
    main()
