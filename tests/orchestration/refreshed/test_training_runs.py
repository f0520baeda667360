"""Windows over a training run in a catalog: what a new step makes anew, on a Dagster instance."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets.work.merging.virtual_checkpoints import plan_of
from assets.work.names import resolve
from examples.quickstart.recipe import Shape
from examples.training_run.catalog import write_catalog
from examples.training_run.training import train
from merge_ops.stream import StreamSettings
from orchestration.catalogs import Partitions, load_catalog
from orchestration.refreshing.refresh import refresh
from orchestration.training_runs import look_for_steps
from resources.places import open_place
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import SHAPE, TinyProject, make_project

TAIL = {
    "window": {"run": "pretrain", "last": 2, "weights": "one_minus_sqrt"},
    "sweep": {"every": [100, 200]},
    "suite": "colours",
}
DEEP = [
    {"name": "early", "window": {"run": "pretrain", "steps": [100, 200]}},
    {"name": "late", "window": {"run": "pretrain", "last": 2}},
    {
        "merge_method": "linear",
        "models": [{"model": "early"}, {"model": "late"}],
        "parameters": {"weight": 0.5},
        "verify": False,
    },
]
SCHEDULES, MIDDLE = ("uniform", "linear", "one_minus_sqrt", "cosine"), "default|pretrain"
TINY = Shape(hidden=16, intermediate=24, layers=1, heads=2, kv_heads=1)
STEPS = range(100, 500, 100)


def save_step(run: Path, step: int, seed: int | None = None) -> None:
    """A step of a run: the base, and a task vector of its own."""
    tensors = factory.expert_tensors(factory.base_tensors(SHAPE), step if seed is None else seed)
    factory.write_checkpoint(run / f"checkpoint-{step}", tensors, SHAPE)


def make_run(root: Path) -> TinyProject:
    """A catalog with a run of four steps and windows over it."""
    project = make_project(root, {"tail": TAIL}, experts=1)
    file = project.catalog / "models.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["runs"] = [{"name": "pretrain", "steps": "../run", "licence": "apache-2.0"}]
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    for step in STEPS:
        save_step(root / "run", step)
    return project


def run(project: TinyProject, instance: dg.DagsterInstance) -> dict[str, set[str | None]]:
    report = refresh(instance, project.settings())
    assert report.failures == []
    assert all(count.up_to_date >= 0 for count in report.counts.values())
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def materializations(instance: dg.DagsterInstance, asset: str, partition: str | None) -> int:
    """How often a partition was ever made."""
    keys = [partition] if partition is not None else None
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset.split("/")), asset_partitions=keys)
    return len(instance.fetch_materializations(wanted, limit=50).records)


def test_a_thirteenth_step_makes_exactly_the_windows_that_hold_it_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """The example in small: its catalog, twelve steps of one update each, then one more."""
    write_catalog(tmp_path, updates=1, counts={"validation": 6, "test": 6})
    train(tmp_path, 12, updates=1, shape=TINY)
    project = TinyProject(tmp_path, (tmp_path / "store").as_uri())
    tail = {f"weights={name}|pretrain" for name in SCHEDULES}
    first = run(project, instance)
    assert first["run_step"] == first["run_scores"] == {f"pretrain@{s}" for s in range(1, 13)}
    for asset in ("window", "merged_checkpoint", "scores"):
        assert first[f"tail/{asset}"] == tail
        assert first[f"middle/{asset}"] == {MIDDLE}
    assert {"tail/champion", "middle/champion"} <= set(first)

    train(tmp_path, 13, updates=1, shape=TINY)
    changed = run(project, instance)
    assert changed["run_step"] == changed["run_scores"] == {"pretrain@13"}
    assert changed["tail/merged_checkpoint"] == changed["tail/scores"] == tail
    assert not {"middle/merged_checkpoint", "middle/scores"} & set(changed)
    times = {
        name: materializations(instance, f"{name}/merged_checkpoint", point)
        for name, point in (("tail", min(tail)), ("middle", MIDDLE))
    }
    assert times == {"tail": 2, "middle": 1}

    store = project.opened_store()
    taken = {"middle": (MIDDLE, [5, 6, 7, 8])} | {"tail": (min(tail), [10, 11, 12, 13])}
    for name, (point, steps) in taken.items():
        merged = f"{name}/merged_checkpoint"
        window, ref = resolve(store, f"{name}/window", point), store.ref(merged, point)
        made = resolve(store, merged, point)
        assert window is not None and made is not None and ref is not None  # noqa: PT018
        rows = window.read_json("window.json")
        assert [each["step"] for each in rows] == steps
        assert sum(each["weight"] for each in rows) == pytest.approx(1.0)
        called = {f"pretrain@{step}" for step in steps}
        assert ref.fields["models"].keys() == called
        assert ref.fields["licences"] == dict.fromkeys(called, "apache-2.0")
        assert made.virtual  # and what its manifest says is enough to make it
        assert len(plan_of(store, made, StreamSettings()).checkpoints) == len(steps)
    course = resolve(store, "tail/course")
    assert course is not None
    told = course.read_json("course.json")
    raw = [each["newest step"] for each in told if each["window"] == "the step itself"]
    assert raw == [*range(1, 14)]
    assert all(each["95 % from"] < each["mean"] < each["95 % to"] for each in told)
    windows = {(each["window"], each["newest step"]) for each in told} - {
        ("the step itself", step) for step in raw
    }
    assert windows == {(f"weights={name}", step) for name in SCHEDULES for step in (12, 13)}
    assert course.read_bytes("course.png").startswith(b"\x89PNG")


def test_the_sensor_adds_whole_new_steps_and_asks_for_a_look(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_run(tmp_path)
    catalog = load_catalog(project.catalog)
    definition = Partitions(catalog, "tiny").run_steps
    (tmp_path / "run" / "checkpoint-400" / "model.safetensors").unlink()  # it is being written
    asked: Any = look_for_steps(instance, catalog, definition)
    (added,) = asked.dynamic_partitions_requests
    assert added.partition_keys == [f"pretrain@{step}" for step in STEPS[:-1]]
    assert len(asked.run_requests) == 1
    instance.add_dynamic_partitions(str(definition.name), added.partition_keys)
    assert isinstance(look_for_steps(instance, catalog, definition), dg.SkipReason)
    save_step(tmp_path / "run", 400)
    asked = look_for_steps(instance, catalog, definition)
    assert asked.dynamic_partitions_requests[0].partition_keys == ["pretrain@400"]


def test_a_catalog_of_one_run_in_a_bucket_and_no_models(
    s3_root: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """Steps are prefixes on a real server: the sensor finds a new one, and the window takes it."""
    project = make_project(tmp_path, {"tail": {"window": {"run": "pretrain", "last": 2}}}, 0)
    document = {"runs": [{"name": "pretrain", "steps": f"{s3_root}/run/checkpoint-{{step}}"}]}
    (project.catalog / "models.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")

    def save(step: int) -> None:
        save_step(tmp_path / "run", step)
        place = open_place(f"{s3_root}/run/checkpoint-{step}")
        for path in (tmp_path / "run" / f"checkpoint-{step}").iterdir():
            place.put(path.name, path.read_bytes())

    save(100)
    save(200)
    catalog = load_catalog(project.catalog)
    definition = Partitions(catalog, "tiny").run_steps
    asked: Any = look_for_steps(instance, catalog, definition)
    (added,) = asked.dynamic_partitions_requests
    assert added.partition_keys == ["pretrain@100", "pretrain@200"]
    instance.add_dynamic_partitions(str(definition.name), added.partition_keys)
    save(300)
    asked = look_for_steps(instance, catalog, definition)
    assert asked.dynamic_partitions_requests[0].partition_keys == ["pretrain@300"]
    made = run(project, instance)
    assert made["run_step"] == {f"pretrain@{step}" for step in (100, 200, 300)}
    assert made["tail/merged_checkpoint"] == {"default|pretrain"}
    window = resolve(project.opened_store(), "tail/window", "default|pretrain")
    assert window is not None
    assert [each["step"] for each in window.read_json("window.json")] == [200, 300]


def test_windows_that_other_documents_use_and_steps_that_change_or_go(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_run(tmp_path)
    (project.catalog / "recipes" / "tail.yaml").unlink()
    path = project.catalog / "recipes" / "deep.yaml"
    path.write_text(yaml.safe_dump_all(DEEP), encoding="utf-8")
    first = run(project, instance)
    assert first["deep/step/early"] == first["deep/step/late"] == {None}
    assert first["deep/merged_checkpoint"] == {"default|pretrain"}

    save_step(tmp_path / "run", 400, seed=7)  # written again
    shutil.rmtree(tmp_path / "run" / "checkpoint-300")
    changed = run(project, instance)
    assert changed["run_step"] == {"pretrain@400"}
    assert "deep/step/early" not in changed
    assert changed["deep/step/late"] == {None}
    assert changed["deep/merged_checkpoint"] == {"default|pretrain"}

    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    report = refresh(instance, project.settings())
    assert any("run 'pretrain': steps is '../run', and" in each for each in report.failures)
    store = project.opened_store()
    for step in (100, 300):  # what was pulled is kept
        assert store.ref("run_step", f"pretrain@{step}") is not None
