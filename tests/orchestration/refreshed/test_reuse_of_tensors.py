"""After an upstream change in one tensor, only that one is merged again; the rest is copied."""

from pathlib import Path

import dagster as dg

from assets.work.merging.merging import CHECKPOINT
from orchestration.definitions import build_definitions
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.brought_up import ProjectsBroughtUp
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, TinyProject

CHANGED = "model.layers.0.mlp.up_proj.weight"
WRITTEN = {name: each for name, each in TASK_ARITHMETIC.items() if name != "suite"}
"""Without scores, what is merged is written: a virtual checkpoint has nothing to copy."""
MODELS = ("base", "e1", "e2")
ASSET = "task_arithmetic/merged_checkpoint"


def change_one_tensor(project: TinyProject, expert: str) -> None:
    folder = project.root / "upstream" / expert
    tensors = factory.read_tensors(folder)
    tensors[CHANGED] = tensors[CHANGED] * 1.25
    factory.rewrite_weights(folder, tensors)


def reused_in(instance: dg.DagsterInstance, partition: str) -> object:
    """How many tensors the last materialization of a partition copied."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(ASSET.split("/")), asset_partitions=[partition]), limit=1
    ).records
    event = records[0].asset_materialization
    assert event is not None
    return event.metadata["tensors reused"].value


def test_a_change_of_one_tensor_merges_one_tensor(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project = brought_up.tiny(instance, {"task_arithmetic": WRITTEN}, experts=2)
    partition = "lambda=0.5|e1+e2"
    assert reused_in(instance, partition) == 0

    change_one_tensor(project, "e2")
    assert refresh(instance, project.settings()).failures == []
    tensors = len(project.shape.tensor_shapes())
    assert reused_in(instance, partition) == tensors - 1

    store = ArtifactStore.open(project.store)
    reused = store.resolve(ASSET, partition)
    assert reused is not None
    assert store.verify(reused) == []
    assert reused.content_digest == merged_anew(project, tmp_path / "elsewhere")


def merged_anew(project: TinyProject, root: Path) -> str:
    """The content of the same checkpoint from a store that knows nothing earlier."""
    other = TinyProject(project.root, root.as_uri(), project.shape)
    job = build_definitions(other.settings()).resolve_implicit_global_asset_job_def()
    point = "lambda=0.5|e1+e2"
    with dg.DagsterInstance.ephemeral() as instance:
        for asset, partition in (*(("model", each) for each in MODELS), (ASSET, point)):
            key = dg.AssetKey(asset.split("/"))
            assert job.execute_in_process(
                instance=instance, asset_selection=[key], partition_key=partition
            ).success
    fresh = ArtifactStore.open(other.store).resolve(ASSET, point)
    assert fresh is not None
    return fresh.content_digest


def test_a_damaged_earlier_checkpoint_is_not_copied_from(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    project = brought_up.tiny(instance, {"task_arithmetic": WRITTEN}, experts=2)
    store = ArtifactStore.open(project.store)
    partition = "lambda=0.5|e1+e2"
    earlier = store.resolve(ASSET, partition)
    assert earlier is not None
    weights = earlier.folder() / "model.safetensors"
    weights.chmod(0o644)
    spoiled = bytearray(weights.read_bytes())
    spoiled[-3] ^= 0x40
    weights.write_bytes(spoiled)

    change_one_tensor(project, "e2")
    assert refresh(instance, project.settings()).failures == []
    assert reused_in(instance, partition) == 0
    reused = store.resolve(ASSET, partition)
    assert reused is not None
    assert reused.content_digest == merged_anew(project, tmp_path / "elsewhere")


def test_a_recipe_changed_beside_the_numbers_copies_everything(
    brought_up: ProjectsBroughtUp, instance: dg.DagsterInstance
) -> None:
    """The plan's digest is another one for a changed config; not one tensor is computed again."""
    project = brought_up.tiny(instance, {"task_arithmetic": WRITTEN}, experts=2)
    store = ArtifactStore.open(project.store)
    factory.edit_config(project.root / "upstream" / "base", max_position_embeddings=256)
    assert refresh(instance, project.settings()).failures == []
    partition = "lambda=0.5|e1+e2"
    tensors = len(project.shape.tensor_shapes())
    assert reused_in(instance, partition) == tensors
    assert store.resolve(ASSET, partition).kind == CHECKPOINT
