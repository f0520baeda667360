"""Steps of other structure in a catalog: mixtures, deeper and converted models, chained by name."""

import json
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
import pytest
import yaml
from tokenizers import Tokenizer

from assets.work.names import resolve
from orchestration.catalogs import load_catalog
from orchestration.definitions import build_definitions
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.tiny_project import TinyProject, make_project

EXPERTS = [{"source_model": "e1"}, {"source_model": "e2"}]
MIXTURE = {"base_model": "base", "gate_mode": "random", "experts": EXPERTS, "verify": False}
DEEPER = {"expand": {"layers": 2, "every": 1}, "models": [{"model": "e1"}], "verify": False}
LONGER = {"vocabulary": {"extend": ["融合", "模型"]}, "models": [{"model": "e1"}], "verify": False}
LONGER_OF_E1 = ("longer/merged_checkpoint", "default|e1")
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


def _tokens(store: ArtifactStore, asset: str, partition: str) -> int:
    """How many tokens four letters take."""
    artifact = resolve(store, asset, partition)
    assert artifact is not None
    tokenizer = Tokenizer.from_str(json.dumps(artifact.read_json("tokenizer.json")))
    return len(tokenizer.encode("融合模型").ids)


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    recipes = {"mixture": MIXTURE, "deeper": DEEPER, "longer": LONGER}
    made = make_project(tmp_path, recipes, experts=2)
    write_documents(made, "chain", *CHAIN)
    return made


def test_each_is_an_asset_whose_result_the_next_step_takes(
    project: TinyProject, instance: dg.DagsterInstance
) -> None:
    """Run by their job alone: what the conditions ask for follows from the graph, below."""
    assert load_catalog(project.catalog).broken == {}
    job = build_definitions(project.settings()).resolve_implicit_global_asset_job_def()
    runs = [("model", name) for name in ("base", "e1", "e2")]
    runs += [("mixture/merged_checkpoint", "default|e1+e2")]
    runs += [LONGER_OF_E1]
    runs += [("chain/merged_checkpoint", "default|e1+e2")]  # which makes the steps that it needs
    for asset, partition in runs:
        key = dg.AssetKey(asset.split("/"))
        assert job.execute_in_process(
            instance=instance,
            asset_selection=[key],
            partition_key=partition,
        ).success
    store = project.opened_store()
    for name, layers in (("mixture", 1), ("chain", 2)):
        made = resolve(store, f"{name}/merged_checkpoint", "default|e1+e2")
        assert made is not None
        config = made.read_json("config.json")
        assert (config["model_type"], config["num_hidden_layers"]) == ("qwen2_moe", layers)
    assert [_tokens(store, *each) for each in (LONGER_OF_E1, ("model", "e1"))] == [2, 12]
    mixture = store.ref("mixture/merged_checkpoint", "default|e1+e2")
    assert mixture is not None
    assert mixture.fields["models"].keys() == {"base", "e1", "e2"}


def test_an_asset_of_structure_has_its_models_for_inputs(project: TinyProject) -> None:
    graph = build_definitions(project.settings()).resolve_asset_graph()
    mixture = graph.get(dg.AssetKey(["mixture", "merged_checkpoint"]))
    assert mixture.parent_keys == {dg.AssetKey("model")}
    assert not graph.has(dg.AssetKey(["mixture", "merge_plan"]))
    chain = graph.get(dg.AssetKey(["chain", "step", "deeper"]))
    assert chain.parent_keys == {dg.AssetKey(["chain", "step", "mean"])}
    deeper = graph.get(dg.AssetKey(["deeper", "merged_checkpoint"]))
    model = dg.AssetKey("model")
    mapping = graph.get_partition_mapping(deeper.key, model)
    assert mapping == dg.SpecificPartitionsPartitionMapping(["e1"])  # and no other model touches it
