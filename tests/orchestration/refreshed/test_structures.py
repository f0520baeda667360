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
from orchestration.commands.merging.protection_command import write_key
from orchestration.definitions import build_definitions
from resources.store.artifact_store import ArtifactStore
from tests.orchestration.projects.tiny_project import TinyProject, make_project

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


TEXTS = "mint cools the lungs\nqi\nginger warms, and rhubarb calms the spleen.\n"
MIX = {"base_model": "base", "gate_mode": "random", "experts_per_token": 2, "verify": False}
THREE = [{"source_model": name} for name in ("e1", "e2", "base")]
NOISY = [{**each, "noise_scale": 0.05} for each in THREE]
SMALLER = [
    {"name": "one", **MIX, "experts": THREE},
    {"name": "two", **MIX, "experts": NOISY, "seed": 3},
    {
        "name": "both",
        "merge_method": "linear",
        "models": [{"model": "one"}, {"model": "two"}],
        "parameters": {"weight": 0.5},
        "router": "calibrate",
        "texts": "texts/herbs.txt",
    },
    {
        "moe": {"keep": 2, "method": "hc_smoe", "texts": "texts/herbs.txt", "router": "calibrate"},
        "models": [{"model": "both"}],
        "verify": False,
    },
]


@pytest.fixture
def calibrated(tmp_path: Path) -> TinyProject:
    made = make_project(tmp_path, {}, experts=2)
    (made.catalog / "texts").mkdir()
    (made.catalog / "texts" / "herbs.txt").write_text(TEXTS, encoding="utf-8")
    write_documents(made, "smaller", *SMALLER)
    return made


def test_routers_are_fitted_and_moe_experts_measured_on_texts_of_the_catalog(
    calibrated: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_catalog(calibrated.catalog).broken == {}
    definitions = build_definitions(calibrated.settings())
    job = definitions.resolve_implicit_global_asset_job_def()

    def make(asset: str, partition: str) -> None:
        key = dg.AssetKey(asset.split("/"))
        assert job.execute_in_process(
            instance=instance, asset_selection=[key], partition_key=partition
        ).success

    for name in ("base", "e1", "e2"):
        make("model", name)
    make("smaller/merged_checkpoint", "default|e1+e2")
    store = calibrated.opened_store()
    merged = resolve(store, "smaller/merged_checkpoint", "default|e1+e2")
    assert merged is not None
    assert merged.read_json("config.json")["num_experts"] == 2
    assert not merged.virtual
    kept = [len(store.digests(kind)) for kind in ("gates", "moe_statistics")]
    assert kept == [2, 1]  # routers of both steps, and what the second one measured

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is measured twice")

    monkeypatch.setattr("assets.work.measuring.model_child.ask_child", refuse)
    make("smaller/merged_checkpoint", "default|e1+e2")
    graph = definitions.resolve_asset_graph()
    steps = [dg.AssetKey(["smaller", "step", name]) for name in ("one", "two", "both")]
    assert all(graph.has(each) for each in steps)
    assert graph.get(dg.AssetKey(["smaller", "merged_checkpoint"])).parent_keys == {steps[-1]}


def test_other_texts_make_a_step_anew(calibrated: TinyProject) -> None:
    def version() -> str | None:
        graph = build_definitions(calibrated.settings()).resolve_asset_graph()
        return graph.get(dg.AssetKey(["smaller", "step", "both"])).code_version

    before = version()
    assert version() == before
    (calibrated.catalog / "texts" / "herbs.txt").write_text("ginger warms\n", encoding="utf-8")
    assert version() != before


def test_what_a_catalog_cannot_calibrate_with_is_told(calibrated: TinyProject) -> None:
    fewer = {"keep": 2, "method": "reap", "statistics": "s.safetensors"}
    calibrated.write_recipe("filed", {"moe": fewer, "models": [{"model": "e1"}]})
    fewer = {"keep": 2, "method": "reap", "texts": "texts/none.txt"}
    calibrated.write_recipe("lacking", {"moe": fewer, "models": [{"model": "e1"}]})
    broken = {name: str(part) for name, part in load_catalog(calibrated.catalog).broken.items()}
    told = " ".join(broken.values())
    assert len(broken) == 2
    assert "moe.statistics is 's.safetensors', a file that no store keeps: write `texts:`" in told
    assert "none.txt: calibration texts cannot be read" in told


def test_a_protected_model_is_an_asset_and_its_key_is_in_no_store(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    key = tmp_path / "keys" / "my.key.json"
    key.parent.mkdir()
    write_key(key, (), scaled=True)
    model = {"models": [{"model": "base"}], "verify": False}
    project = make_project(tmp_path, {"hidden": {"protect": {"key": str(key)}, **model}}, experts=1)
    back = [{"name": "hidden", **model}, {"protect": {"key": str(key), "undo": True}}]
    back[0]["protect"] = {"key": str(key)}
    back[1] |= {"models": [{"model": "hidden"}], "verify": False}
    write_documents(project, "back", *back)
    assert load_catalog(project.catalog).broken == {}
    job = build_definitions(project.settings()).resolve_implicit_global_asset_job_def()
    made = [
        (name, "default|base") for name in ("hidden/merged_checkpoint", "back/merged_checkpoint")
    ]
    for asset, partition in [("model", "base"), *made]:
        asked = dg.AssetKey(asset.split("/"))
        assert job.execute_in_process(
            instance=instance, asset_selection=[asked], partition_key=partition
        ).success
    store, secret = project.opened_store(), json.loads(key.read_text())["secret"]
    weights = []
    for asset, partition in (("model", "base"), *made):
        artifact = resolve(store, asset, partition)
        assert artifact is not None
        weights.append(artifact.read_bytes("model.safetensors"))
    assert weights[0] == weights[2] != weights[1]
    files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert files
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_a_key_that_the_catalog_would_give_away_is_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path, {}, experts=1)
    inside = project.catalog / "my.key.json"
    for name, key in (("near", "my.key.json"), ("inside", str(inside))):
        recipe = {"protect": {"key": key}, "models": [{"model": "e1"}]}
        project.write_recipe(name, recipe)
    told = " ".join(str(each) for each in load_catalog(project.catalog).broken.values())
    assert "protect.key is 'my.key.json'; it must be the absolute path of a file" in told
    assert "in the catalog's folder, which everybody reads who has the catalog" in told
