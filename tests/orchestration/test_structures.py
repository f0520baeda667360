"""Steps of other structure in a catalog: mixtures, deeper and converted models, chained by name."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.work.names import resolve
from orchestration.catalogs import load_catalog
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.tiny_project import TinyProject, make_project

EXPERTS = [{"source_model": "e1"}, {"source_model": "e2"}]
MIXTURE = {"base_model": "base", "gate_mode": "random", "experts": EXPERTS, "verify": False}
DEEPER = {"expand": {"layers": 2, "every": 1}, "models": [{"model": "e1"}], "verify": False}
CHAIN = [
    {
        "name": "mean",
        "merge_method": "linear",
        "experts": [["e1", "e2"]],
        "parameters": {"weight": 1.0},
    },
    {"name": "deeper", "expand": {"layers": 2, "every": 1}, "models": [{"model": "mean"}]},
    {
        "base_model": "deeper",
        "gate_mode": "uniform_random",
        "experts": [{"source_model": "deeper", "noise_scale": 0.01}, {"source_model": "deeper"}],
        "verify": False,
    },
]


def write_documents(project: TinyProject, name: str, *documents: Mapping[str, object]) -> None:
    path = project.catalog / "recipes" / f"{name}.yaml"
    path.write_text(yaml.safe_dump_all([dict(each) for each in documents]), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    recipes = {"mixture": MIXTURE, "deeper": DEEPER}
    made = make_project(tmp_path, recipes, experts=2)
    write_documents(made, "chain", *CHAIN)
    return made


def run(project: TinyProject, instance: dg.DagsterInstance) -> dict[str, set[str | None]]:
    report = refresh(instance, project.settings())
    assert report.failures == []
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def test_each_is_an_asset_that_follows_its_models(
    project: TinyProject, instance: dg.DagsterInstance
) -> None:
    assert load_catalog(project.catalog).broken == {}
    first = run(project, instance)
    made = {asset: keys for asset, keys in first.items() if asset.endswith("merged_checkpoint")}
    assert made == {
        "mixture/merged_checkpoint": {"default|e1+e2"},
        "deeper/merged_checkpoint": {"default|e1"},
        "chain/merged_checkpoint": {"default|e1+e2"},
    }
    store = ArtifactStore.open(project.store)
    kinds = {
        name: resolve(store, f"{name}/merged_checkpoint", key).read_json("config.json")
        for name, key in (("mixture", "default|e1+e2"), ("chain", "default|e1+e2"))
    }
    assert {name: each["model_type"] for name, each in kinds.items()} == {
        "mixture": "qwen2_moe",
        "chain": "qwen2_moe",
    }
    assert kinds["chain"]["num_hidden_layers"] == 2
    project.retrain("e2", seed=5)
    changed = run(project, instance)
    assert "mixture/merged_checkpoint" in changed
    assert "chain/step/deeper" in changed
    assert "deeper/merged_checkpoint" not in changed


def test_an_asset_of_structure_has_its_models_for_inputs(project: TinyProject) -> None:
    graph = build_definitions(project.settings()).resolve_asset_graph()
    mixture = graph.get(dg.AssetKey(["mixture", "merged_checkpoint"]))
    assert mixture.parent_keys == {dg.AssetKey("model")}
    assert not graph.has(dg.AssetKey(["mixture", "merge_plan"]))
    chain = graph.get(dg.AssetKey(["chain", "step", "deeper"]))
    assert chain.parent_keys == {dg.AssetKey(["chain", "step", "mean"])}
