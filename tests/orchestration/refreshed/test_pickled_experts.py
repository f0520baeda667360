"""Pickled upstream models enter the store as safetensors; a pickle that does more never does."""

from pathlib import Path

import dagster as dg
import torch

from assets.work.upstream.packed_models import as_it_was
from orchestration.refreshing.refresh import refresh
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.orchestration.commands.models.test_pickled_weights import Malice, pickle_weights
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, make_project, write_models


def resolved(store: ArtifactStore, asset: str, partition: str) -> Artifact:
    found = store.resolve(asset, partition)
    assert found is not None
    return found


def test_pickled_experts_are_converted_and_malicious_ones_refused(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    recipe = {**TASK_ARITHMETIC, "experts": ["all"], "sweep": {"lambda": [0.5]}, "keep": "all"}
    project = make_project(tmp_path, {"task_arithmetic": recipe}, experts=2)
    project.train_adapter("tcm", seed=3)
    write_models(project.catalog, ["e1", "e2"], adapters=["tcm"])
    upstream, store = tmp_path / "upstream", ArtifactStore.open(project.store)
    assert refresh(instance, project.settings()).failures == []
    partition = "lambda=0.5|e1+e2+tcm"
    before = resolved(store, "task_arithmetic/merged_checkpoint", partition)
    safe = resolved(store, "model", "e2")
    tensors = factory.read_tensors(upstream / "e1")

    pickle_weights(upstream / "e1", shards=2)
    pickle_weights(upstream / "tcm")
    assert refresh(instance, project.settings()).failures == []
    kept = resolved(store, "model", "e1")
    assert not [file for file in kept.files if ".bin" in file]
    found = factory.read_tensors(as_it_was(store, kept).folder())
    assert found.keys() == tensors.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in tensors.items())
    assert "adapter_model.safetensors" in resolved(store, "model", "tcm").files
    after = resolved(store, "task_arithmetic/merged_checkpoint", partition)
    merged = [(each.folder() / "model.safetensors").read_bytes() for each in (before, after)]
    assert merged[0] == merged[1]

    trace = tmp_path / "trace"
    (upstream / "e2" / "model.safetensors").unlink()
    torch.save({"weight": Malice(trace)}, upstream / "e2" / "pytorch_model.bin")
    told = "\n".join(map(str, refresh(instance, project.settings()).failures))
    assert (
        f"{upstream / 'e2'}: its pickled weights are refused, and nothing in them was run" in told
    )
    assert not trace.exists()
    assert resolved(store, "model", "e2").digest == safe.digest
    files = [path.name for path in (tmp_path / "store").rglob("*")]
    assert not [name for name in files if ".bin" in name]
