"""Windows over a training run in a catalog: what a new step makes anew, on a Dagster instance."""

import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets.work.names import resolve
from assets.work.virtual_checkpoints import plan_of
from merge_ops.stream import StreamSettings
from orchestration.catalogs import Partitions, load_catalog
from orchestration.refreshing.refresh import refresh
from orchestration.training_runs import look_for_steps
from tests import checkpoint_factory as factory
from tests.orchestration.tiny_project import SHAPE, TinyProject, make_project

TAIL = {
    "window": {"run": "pretrain", "weights": "one_minus_sqrt"},
    "sweep": {"last": [2, 4]},
    "suite": "colours",
}
FIRST = {"window": {"run": "pretrain", "steps": [100, 200]}, "suite": "colours", "keep": "none"}
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
POINTS = {f"last={last}|pretrain" for last in (2, 4)}
ONE, STEPS = {"default|pretrain"}, range(100, 1300, 100)


def save_step(run: Path, step: int, seed: int | None = None) -> None:
    """A step of a run: the base, and a task vector of its own."""
    tensors = factory.expert_tensors(factory.base_tensors(SHAPE), step if seed is None else seed)
    factory.write_checkpoint(run / f"checkpoint-{step}", tensors, SHAPE)


def make_run(root: Path) -> TinyProject:
    """A catalog with a run of twelve steps and three recipes over it, one of three documents."""
    project = make_project(root, {"tail": TAIL, "first": FIRST}, experts=1)
    path = project.catalog / "recipes" / "deep.yaml"
    path.write_text(yaml.safe_dump_all(DEEP), encoding="utf-8")
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
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def made_of(changed: dict[str, set[str | None]], *ends: str) -> dict[str, set[str | None]]:
    return {asset: keys for asset, keys in changed.items() if asset.endswith(ends)}


def materializations(instance: dg.DagsterInstance, asset: str, partition: str | None) -> int:
    """How often a partition was ever made."""
    keys = [partition] if partition is not None else None
    wanted = dg.AssetRecordsFilter(dg.AssetKey(asset.split("/")), asset_partitions=keys)
    return len(instance.fetch_materializations(wanted, limit=50).records)


def test_a_thirteenth_step_makes_exactly_the_windows_that_hold_it_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_run(tmp_path)
    first = run(project, instance)
    assert first["run_step"] == first["run_scores"] == {f"pretrain@{step}" for step in STEPS}
    assert first["tail/window"] == first["tail/merged_checkpoint"] == first["tail/scores"] == POINTS
    assert first["first/merged_checkpoint"] == first["deep/merged_checkpoint"] == ONE
    assert first["deep/step/early"] == first["deep/step/late"] == {None}
    assert {"tail/champion", "first/champion"} <= first.keys()

    save_step(tmp_path / "run", 1300)
    changed = run(project, instance)
    assert changed["run_step"] == changed["run_scores"] == {"pretrain@1300"}
    assert made_of(changed, "merged_checkpoint", "/late", "/early") == {
        "tail/merged_checkpoint": POINTS,
        "deep/step/late": {None},
        "deep/merged_checkpoint": ONE,
    }
    assert made_of(changed, "/scores") == {"tail/scores": POINTS}
    assert materializations(instance, "tail/merged_checkpoint", "last=2|pretrain") == 2
    assert materializations(instance, "first/merged_checkpoint", "default|pretrain") == 1
    assert materializations(instance, "deep/step/early", None) == 1
    store = project.opened_store()
    window = resolve(store, "tail/window", "last=2|pretrain")
    assert window is not None
    rows = window.read_json("window.json")
    assert [each["step"] for each in rows] == [1200, 1300]
    assert sum(each["weight"] for each in rows) == pytest.approx(1.0)
    merged = store.ref("tail/merged_checkpoint", "last=2|pretrain")
    assert merged is not None
    assert set(merged.fields["models"]) == {"pretrain@1200", "pretrain@1300"}
    for point in sorted(POINTS):  # what a manifest says is enough to make each again
        made = resolve(store, "tail/merged_checkpoint", point)
        assert made is not None
        assert made.virtual
        assert len(plan_of(store, made, StreamSettings()).checkpoints) == int(point[5])
    assert merged.fields["licences"] == dict.fromkeys(merged.fields["models"], "apache-2.0")
    course = resolve(store, "tail/course")
    assert course is not None
    told = course.read_json("course.json")
    raw = [each["newest step"] for each in told if each["window"] == "the step itself"]
    assert raw == [*STEPS, 1300]
    of_windows = [(e["window"], e["newest step"]) for e in told if e["window"].startswith("last")]
    assert of_windows == [(f"last={last}", step) for step in (1200, 1300) for last in (2, 4)]
    assert course.read_bytes("course.png").startswith(b"\x89PNG")

    save_step(tmp_path / "run", 100, seed=7)  # a step that was written again
    shutil.rmtree(tmp_path / "run" / "checkpoint-300")  # and one that is gone, which is kept
    changed = run(project, instance)
    assert changed["run_step"] == {"pretrain@100"}
    assert made_of(changed, "merged_checkpoint", "/late", "/early") == {
        "first/merged_checkpoint": ONE,
        "deep/step/early": {None},
        "deep/merged_checkpoint": ONE,
    }
    assert store.ref("run_step", "pretrain@300") is not None


def test_the_sensor_adds_whole_new_steps_and_asks_for_a_look(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_run(tmp_path)
    catalog = load_catalog(project.catalog)
    definition = Partitions(catalog, "tiny").run_steps
    (tmp_path / "run" / "checkpoint-1200" / "model.safetensors").unlink()  # it is being written
    asked: Any = look_for_steps(instance, catalog, definition)
    (added,) = asked.dynamic_partitions_requests
    assert added.partition_keys == [f"pretrain@{step}" for step in STEPS[:-1]]
    assert len(asked.run_requests) == 1
    instance.add_dynamic_partitions(str(definition.name), added.partition_keys)
    assert isinstance(look_for_steps(instance, catalog, definition), dg.SkipReason)
    save_step(tmp_path / "run", 1200)
    asked = look_for_steps(instance, catalog, definition)
    assert asked.dynamic_partitions_requests[0].partition_keys == ["pretrain@1200"]


def test_a_run_that_is_gone_is_said_and_a_short_one_holds_up_no_other_window(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_run(tmp_path)
    for name in ("first", "deep"):
        (project.catalog / "recipes" / f"{name}.yaml").unlink()
    project.write_recipe("tail", {**TAIL, "sweep": {"last": [1, 40]}, "suite": None})
    report = refresh(instance, project.settings())
    assert report.counts["tail/merged_checkpoint"].rerun == {"last=1|pretrain"}
    (failure,) = report.failures
    assert "asks for the last 40, and the run has 12 step(s)" in failure
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    report = refresh(instance, project.settings())
    assert any("run 'pretrain': steps is '../run', and" in each for each in report.failures)
    assert project.opened_store().ref("run_step", "pretrain@100") is not None
