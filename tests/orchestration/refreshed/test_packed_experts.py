"""Experts kept as exact differences, from the pull to the leaderboard and back to their bytes."""

from pathlib import Path

import dagster as dg
import torch
import yaml

from orchestration.refreshing.refresh import refresh
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, TinyProject, make_project

SHAPE = factory.Shape(
    "qwen2", layers=1, hidden=64, intermediate=96, tied=True, dtype=torch.bfloat16
)
RECIPE = {**TASK_ARITHMETIC, "experts": ["all"], "sweep": {"lambda": [0.5]}}
POINT = "lambda=0.5|e1+e2"


def keep(project: TinyProject, **stores: str) -> None:
    """Say in models.yaml how experts are to be kept."""
    path = project.catalog / "models.yaml"
    document = yaml.safe_load(path.read_text())
    for model in document["models"]:
        model.pop("store", None)
        if model["name"] in stores:
            model["store"] = stores[model["name"]]
    path.write_text(yaml.safe_dump(document))


def resolved(store: ArtifactStore, asset: str, partition: str | None = None) -> Artifact:
    found = store.resolve(asset, partition)
    assert found is not None
    return found


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_packed_and_full_experts_give_the_same_digests(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    project = make_project(tmp_path, {"task_arithmetic": RECIPE}, experts=2, shape=SHAPE)
    keep(project, e1="full", e2="full")
    assert refresh(instance, project.settings()).failures == []
    full = ArtifactStore.open(project.store)
    packed = TinyProject(tmp_path, (tmp_path / "packed store").as_uri(), SHAPE)
    keep(packed, e1="packed")  # and e2 by what it saves
    with dg.DagsterInstance.ephemeral() as other:
        assert refresh(other, packed.settings()).failures == []
    store = ArtifactStore.open(packed.store)

    assert [resolved(full, "model", name).kind for name in ("e1", "e2")] == ["model"] * 2
    for name in ("e1", "e2"):
        kept = resolved(store, "model", name)
        assert kept.kind == "packed_model"
        assert kept.digest == resolved(full, "model", name).digest
        assert kept.manifest["base"]["digest"] == resolved(store, "model", "base").digest
        assert kept.nbytes < 0.8 * resolved(full, "model", name).nbytes
    for asset, partition in (
        ("task_arithmetic/merged_checkpoint", POINT),
        ("task_vector", "e1"),
        ("merge_plan", "e1+e2"),
        ("model_scores/colours", "e1"),
        ("task_arithmetic/scores", POINT),
    ):
        one, two = (resolved(each, asset, partition) for each in (full, store))
        assert one.digest == two.digest
    merged = [resolved(each, "task_arithmetic/merged_checkpoint", POINT) for each in (full, store)]
    assert merged[0].content_digest == merged[1].content_digest
    labels = {row["label"] for row in resolved(store, "leaderboard").read_json("colours.json")}
    assert labels >= {"base", "e1", "e2"}

    out = tmp_path / "restored"
    done = ronghe("restore", "e1", "--out", out, environment=packed.environment)
    assert done.returncode == 0, done.stderr
    assert files_of(out) == files_of(tmp_path / "upstream" / "e1")
    again = ronghe("restore", "e1", "--out", out, environment=packed.environment)
    assert (again.returncode, "exists and is not empty" in again.stderr) == (2, True)
    wrong = ronghe("restore", "e3", "--out", tmp_path / "no", environment=packed.environment)
    assert wrong.returncode == 2
    assert "'e3' names nothing in artifact store" in wrong.stderr
    assert "Known are base, e1, e2" in wrong.stderr
    spoil_all(tmp_path / "packed store")
    bad = ronghe("restore", "e1", "--out", tmp_path / "no", environment=packed.environment)
    assert (bad.returncode, "DamagedArtifactError" in bad.stderr) == (2, True), bad.stderr
    assert "has other bytes than were published" in bad.stderr
    assert not (tmp_path / "no").exists()


def spoil_all(store: Path) -> None:
    """Change a byte in the middle of every packed weight file."""
    for path in store.rglob("*.packed"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x40
        path.chmod(0o644)
        path.write_bytes(data)


def test_an_expert_comes_before_its_base(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Its base is pulled with it; what saves too little stays full; a new base changes nothing."""
    project = make_project(tmp_path, {"task_arithmetic": RECIPE}, experts=2, shape=SHAPE)
    stranger = factory.base_tensors(SHAPE, seed=99)
    factory.write_weights(
        tmp_path / "upstream" / "e2",
        {name: torch.randn(tensor.shape) for name, tensor in stranger.items()},
    )
    from orchestration.definitions import build_definitions

    job = build_definitions(project.settings()).resolve_implicit_global_asset_job_def()
    for name in ("e1", "e2"):
        done = job.execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("model")], partition_key=name
        )
        assert done.success
        (event,) = done.asset_materializations_for_node("model")
        kept = event.metadata["kept"].value
        assert kept == (
            "full" if name == "e2" else "packed losslessly, as the difference from its base"
        )
    store = ArtifactStore.open(project.store)
    before = resolved(store, "model", "e1")
    assert before.manifest["base"]["digest"] == resolved(store, "model", "base").digest
    project.retrain("base", seed=5)
    done = job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("model")], partition_key="base"
    )
    assert done.success
    from assets.work.upstream.packed_models import stored_model

    kept = stored_model(store, "e1")
    assert kept is not None
    cache = tmp_path / "elsewhere"
    assert files_of(kept.folder(cache)) == files_of(tmp_path / "upstream" / "e1")
