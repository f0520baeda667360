"""A LoRA adapter is an expert like any other, from the observation to the leaderboard."""

from pathlib import Path

import dagster as dg
import torch

from orchestration.refreshing.refresh import RefreshReport, refresh
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX
from tests.orchestration.projects.tiny_project import (
    TASK_ARITHMETIC,
    TinyProject,
    make_project,
    write_models,
)

QUERY = "model.layers.0.self_attn.q_proj"


def rerun(report: RefreshReport) -> dict[str, set[str | None]]:
    """What was materialized, by asset."""
    return {asset: count.rerun for asset, count in report.counts.items() if count.rerun}


def run(project: TinyProject, instance: dg.DagsterInstance) -> RefreshReport:
    """A refresh that must succeed."""
    report = refresh(instance, project.settings())
    assert report.failures == []
    return report


def resolved(store: ArtifactStore, asset: str, partition: str | None = None) -> Artifact:
    found = store.resolve(asset, partition)
    assert found is not None
    return found


def test_one_full_expert_and_one_adapter(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    recipe = {**TASK_ARITHMETIC, "keep": "all"}
    project = make_project(tmp_path, {"task_arithmetic": recipe}, experts=1)
    project.train_adapter("tcm", seed=3)
    write_models(project.catalog, ["e1"], adapters=["tcm"])
    run(project, instance)

    store = ArtifactStore.open(project.store)
    kept = resolved(store, "model", "tcm")
    assert "adapter_model.safetensors" in kept.files  # an adapter stays an adapter
    base = factory.read_tensors(tmp_path / "upstream" / "base")
    expert = factory.read_tensors(tmp_path / "upstream" / "e1")
    factors = factory.read_tensors(tmp_path / "upstream" / "tcm")
    down, up = (factors[f"{PREFIX}{QUERY}.lora_{each}.weight"] for each in "AB")
    name = f"{QUERY}.weight"
    merged = resolved(store, "task_arithmetic/merged_checkpoint", "lambda=0.5|e1+tcm")
    torch.testing.assert_close(
        factory.read_tensors(merged.folder())[name],
        base[name] + 0.5 * (expert[name] - base[name] + up @ down),
        rtol=1e-5,
        atol=1e-7,
    )
    whole = resolved(store, "whole_model", "tcm")
    torch.testing.assert_close(
        factory.read_tensors(whole.folder())[name], base[name] + up @ down, rtol=1e-6, atol=1e-7
    )
    vector = resolved(store, "task_vector", "tcm").read_json("study.json")
    moved = {each["name"] for each in vector["tensors"] if each["changed"]}
    assert moved == {name, "model.layers.0.mlp.down_proj.weight"}
    rows = resolved(store, "leaderboard").read_json("colours.json")
    assert {row["label"] for row in rows} >= {"base", "e1", "tcm"}

    project.train_adapter("tcm", seed=4)
    points = {"lambda=0.5|e1+tcm", "lambda=1.0|e1+tcm"}
    downstream: dict[str, set[str | None]] = {
        "task_arithmetic/merge_plan": {"e1+tcm"},
        "task_arithmetic/merged_checkpoint": {*points},
        "task_arithmetic/scores": {*points},
        "leaderboard": {None},
        "task_arithmetic/champion": {None},
        "catalog_site": {None},
    }
    own = {asset: {"tcm"} for asset in ("model", "task_vector", "model_scores")}
    assert rerun(run(project, instance)) == own | downstream
    assert resolved(store, "whole_model", "tcm").digest != whole.digest

    project.retrain("base", seed=9)  # what the adapter makes of its base is another model now
    again = run(project, instance)
    assert rerun(again)["model_scores"] == {"base", "tcm"}
    assert rerun(again)["task_vector"] == {"e1", "tcm"}
    assert rerun(run(project, instance)) == {}
    rows = resolved(store, "leaderboard").read_json("colours.json")
    assert {row["label"] for row in rows} >= {"base", "e1", "tcm"}


def test_a_kind_that_is_not_true_is_told(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = make_project(tmp_path, {"task_arithmetic": TASK_ARITHMETIC}, experts=2)
    project.train_adapter("tcm", seed=3)
    write_models(project.catalog, ["tcm", "e1"], adapters=["e2"])
    report = refresh(instance, project.settings())
    told = "\n".join(str(failure) for failure in report.failures)
    assert "is a LoRA adapter; say `kind: lora`" in told
    assert "is listed as a LoRA adapter but its folder is none" in told
