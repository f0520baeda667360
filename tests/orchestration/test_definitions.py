"""The definitions: what loads, in which order, and on what."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import dagster as dg
import pytest

from orchestration.automation import OBSERVE_JOB
from orchestration.definitions import build_definitions
from orchestration.executors import looking_executor
from tests.merges.merging import ROOT
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    SLERP,
    TASK_ARITHMETIC,
    TinyProject,
    make_project,
)
from tests.servers.waiting import HANG_SECONDS

REPORT = """
import json, sys
from orchestration.definitions import build_definitions
from orchestration.settings import load_settings
defs = build_definitions(load_settings())
heavy = [name for name in ("torch", "transformers", "lm_eval", "datasets", "s3fs", "ray")
         if name in sys.modules]
keys = [key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()]
print(json.dumps([heavy, sorted(keys)]))
"""


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    recipes = {"average": AVERAGE, "slerp": SLERP, "task_arithmetic": TASK_ARITHMETIC}
    return make_project(tmp_path, recipes)


def test_the_shipped_catalog_loads_without_environment_models_or_heavy_imports(
    tmp_path: Path,
) -> None:
    shutil.copytree(ROOT / "catalog", tmp_path / "catalog")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", REPORT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    heavy, keys = json.loads(done.stdout)
    assert heavy == []
    recipes = {path.stem for path in (ROOT / "catalog" / "recipes").glob("*.yaml")}
    for kind in ("merged_checkpoint", "scores", "champion"):
        assert {f"{recipe}/{kind}" for recipe in recipes} <= set(keys)
    assert {"upstream_model", "model", "task_vector", "ties/merge_plan", "leaderboard"} <= set(keys)


def test_definitions_are_valid_and_loadable(project: TinyProject) -> None:
    dg.Definitions.validate_loadable(build_definitions(project.settings()))


def test_a_look_needs_no_process_of_its_own_beside_its_run(project: TinyProject) -> None:
    settings = project.settings()
    job = build_definitions(settings).resolve_job_def(OBSERVE_JOB)
    assert job.executor_def is dg.in_process_executor
    merges = build_definitions(settings).resolve_implicit_global_asset_job_def()
    assert merges.executor_def.name == "multiprocess"
    assert looking_executor(replace(settings, ray="http://127.0.0.1:8265")) is None
    assert looking_executor(replace(settings, pods=True)) is None


def test_each_recipe_is_a_group_of_its_own(project: TinyProject) -> None:
    graph = build_definitions(project.settings()).resolve_asset_graph()
    for recipe in ("average", "slerp", "task_arithmetic"):
        members = {
            key.to_user_string()
            for key in graph.get_all_asset_keys()
            if graph.get(key).group_name == recipe
        }
        kinds = ("merge_plan", "merged_checkpoint", "scores")
        assert members == {f"{recipe}/{kind}" for kind in kinds}


def test_groups_form_no_circle(project: TinyProject) -> None:
    """Dagster draws groups as boxes; leaderboard and champions once closed one around `results`."""
    graph = build_definitions(project.settings()).resolve_asset_graph()
    before: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        above = {graph.get(parent).group_name for parent in node.parent_keys}
        before.setdefault(node.group_name, set()).update(above - {node.group_name})
    order = list(TopologicalSorter(before).static_order())  # raises CycleError
    assert order.index("results") < order.index("champions")


def test_merges_and_scores_share_the_gpu_pool_and_ask_clusters_for_one(
    project: TinyProject,
) -> None:
    definitions = build_definitions(project.settings())
    for key in ("slerp/merged_checkpoint", "slerp/scores", "model_scores"):
        asset = definitions.resolve_assets_def(dg.AssetKey(key.split("/")))
        assert asset.op.pool == "gpu"
        assert asset.op.tags["dagster-ray/config"] in ('{"num_gpus": 1}', {"num_gpus": 1})


def test_a_pairs_only_recipe_maps_sets_exactly(project: TinyProject) -> None:
    graph = build_definitions(project.settings()).resolve_asset_graph()
    slerp = dg.AssetKey(["slerp", "merged_checkpoint"])
    assert set(graph.get(slerp).parent_keys) == {dg.AssetKey(["slerp", "merge_plan"])}
    average = dg.AssetKey(["average", "merged_checkpoint"])
    assert set(graph.get(average).parent_keys) == {dg.AssetKey(["average", "merge_plan"])}
    assert set(graph.get(slerp).partitions_def.get_partition_keys()) == {
        f"t={t}|{pair}" for t in (0.25, 0.5, 0.75) for pair in ("e1+e2", "e1+e3", "e2+e3")
    }


def test_schedule_and_sensor_run_by_default(project: TinyProject) -> None:
    definitions = build_definitions(project.settings())
    (schedule,) = definitions.schedules or []
    (sensor,) = definitions.sensors or []
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_reordering_the_catalog_changes_no_partition(project: TinyProject) -> None:
    before = build_definitions(project.settings()).resolve_asset_graph()
    path = project.catalog / "models.yaml"
    head, *entries = path.read_text(encoding="utf-8").split("- ")
    path.write_text("- ".join([head, *(e.rstrip() + "\n" for e in entries[::-1])]), "utf-8")
    after = build_definitions(project.settings()).resolve_asset_graph()
    for key in before.get_all_asset_keys():
        assert before.get(key).partitions_def == after.get(key).partitions_def
