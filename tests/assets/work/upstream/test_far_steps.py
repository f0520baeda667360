"""Steps of training runs below prefixes of a bucket, on a real server."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import checkpoint

from assets.work.upstream.distributed import source_of_model
from assets.work.upstream.entries import TrainingRun, UpstreamModel
from assets.work.upstream.pulling import open_models
from assets.work.upstream.training_runs import find_steps, pull_step, pulled_steps, step_revisions
from merge_ops.checkpoints import FolderSink
from merge_ops.checkpoints.pickles.pickled_weights import index_among, metadata_of
from merge_ops.errors import CheckpointError
from resources.errors import ModelSourceError, ResourceError
from resources.places import open_place
from resources.store import ArtifactStore
from tests.models.checkpoint_factory import (
    LLAMA,
    base_tensors,
    expert_tensors,
    read_tensors,
    write_checkpoint,
)
from tests.servers.faulty_proxy import running_proxy
from tests.servers.storage_servers import S3Server

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


def upload(folder: Path, uri: str) -> None:
    place = open_place(uri)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            place.put(path.relative_to(folder).as_posix(), path.read_bytes())


def save_step(folder: Path, step: int) -> Path:
    return write_checkpoint(folder, expert_tensors(base_tensors(LLAMA), step), LLAMA)


def runs_of(steps: str) -> dict[str, TrainingRun]:
    return {"pretrain": TrainingRun("pretrain", steps)}


@pytest.mark.parametrize("pattern", ["", "/checkpoint-{step}"])
def test_steps_of_a_bucket_are_found_pulled_and_taken_again_when_they_change(
    s3_root: str, tmp_path: Path, pattern: str
) -> None:
    for step in (900, 1000):
        upload(save_step(tmp_path / str(step), step), f"{s3_root}/run/checkpoint-{step}")
    place = open_place(f"{s3_root}/run")
    place.put("logs/events", b"x")
    place.put("checkpoint-1100/config.json", (tmp_path / "900/config.json").read_bytes())
    whole = (tmp_path / "900/model.safetensors").read_bytes()
    place.put("checkpoint-1200/config.json", (tmp_path / "900/config.json").read_bytes())
    place.put("checkpoint-1200/model.safetensors", whole[:-100])
    runs = runs_of(f"{s3_root}/run{pattern}")
    found = find_steps(runs, tmp_path)
    assert found.faults == {}
    assert list(found.steps) == ["pretrain@900", "pretrain@1000"]
    assert list(found.unready) == ["pretrain@1100", "pretrain@1200"]
    assert "model.safetensors" in found.unready["pretrain@1200"]

    store = ArtifactStore.open((tmp_path / "store").as_uri())
    first = pull_step(store, runs, "pretrain@900", tmp_path)
    assert pull_step(store, runs, "pretrain@900", tmp_path).memoized
    assert pulled_steps(store, "pretrain") == {900: first.artifact.digest}
    upload(save_step(tmp_path / "again", 7), f"{s3_root}/run/checkpoint-900")
    revisions, faults = step_revisions(runs, found, tmp_path)
    assert faults == {}
    assert revisions["pretrain@900"] != first.revision
    second = pull_step(store, runs, "pretrain@900", tmp_path)
    assert second.artifact.digest != first.artifact.digest
    copied = read_tensors(second.artifact.folder())
    wanted = read_tensors(tmp_path / "again")
    assert all(torch.equal(copied[name], each) for name, each in wanted.items())


def save_distributed(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    dcp: Any = checkpoint  # whose functions it does not say it exports
    dcp.save({"model": tensors}, storage_writer=dcp.FileSystemWriter(folder))


@pytest.mark.parametrize("inner", ["", "pytorch_model_fsdp_0"])
def test_a_distributed_step_of_a_bucket_is_pulled_as_safetensors(
    s3_root: str, tmp_path: Path, inner: str
) -> None:
    tensors = {name: each.to(torch.bfloat16) for name, each in base_tensors(LLAMA).items()}
    beside = save_step(tmp_path / "beside", 1)
    (beside / "model.safetensors").unlink()
    upload(beside, f"{s3_root}/run")  # config and tokenizer, once for all steps
    save_distributed(tmp_path / "step" / inner, tensors)
    (tmp_path / "step" / "trainer_state.json").write_text("{}")
    upload(tmp_path / "step", f"{s3_root}/run/step_30")
    whole = open_place(f"{s3_root}/run/step_30")
    open_place(f"{s3_root}/run").put("step_40/__0_0.distcp", b"no index yet")
    runs, store = runs_of(f"{s3_root}/run"), ArtifactStore.open((tmp_path / "store").as_uri())
    found = find_steps(runs, tmp_path)
    assert list(found.steps) == ["pretrain@30"]
    assert list(found.unready) == ["pretrain@40"]
    revisions, faults = step_revisions(runs, found, tmp_path)
    assert faults == {}
    pulled = pull_step(store, runs, "pretrain@30", tmp_path)
    assert pulled.revision == revisions["pretrain@30"]
    assert pulled.tensors == len(tensors)
    assert not any(name.endswith(".distcp") for name in pulled.artifact.files)
    opened = open_models(store, "pretrain@30", ())["pretrain@30"]
    assert opened.config["model_type"] == "llama"
    copied = read_tensors(pulled.artifact.folder())
    assert all(torch.equal(copied[name], each) for name, each in tensors.items())
    assert pull_step(store, runs, "pretrain@30", tmp_path).memoized

    file = f"{inner}/__0_0.distcp".lstrip("/")
    stored = whole.read(file)
    assert stored is not None
    whole.put(file, stored[0][:-1])  # the end of a file is cut off
    with pytest.raises((CheckpointError, ResourceError)):
        pull_step(store, runs, "pretrain@30", tmp_path)
    assert pulled_steps(store, "pretrain") == {30: pulled.artifact.digest}


def test_a_distributed_step_that_a_network_spoils_is_refused(
    s3_root: str, seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its index says nothing of the bytes of its files: they are compared with their tags."""
    save_distributed(tmp_path / "step", base_tensors(LLAMA))
    (tmp_path / "step" / "config.json").write_text("{}")
    upload(tmp_path / "step", f"{s3_root}/run/step_30")
    model = UpstreamModel("step", f"{s3_root}/run/step_30")
    with running_proxy(seaweedfs.endpoint, share=0.0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        source = source_of_model(model, tmp_path)
        source.revision()
        proxy.always = "wrong"
        with pytest.raises(ModelSourceError, match="arrived with other bytes than are there; chec"):
            source.copy_to(FolderSink(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_distributed_step_without_a_config_says_where_one_belongs(
    s3_root: str, tmp_path: Path
) -> None:
    save_distributed(tmp_path / "step", base_tensors(LLAMA))
    upload(tmp_path / "step", f"{s3_root}/run/step_30")
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    with pytest.raises(CheckpointError, match=r"without a config\.json; put config\.json and the"):
        pull_step(store, runs_of(f"{s3_root}/run"), "pretrain@30", tmp_path)


def test_which_files_are_a_distributed_checkpoint(tmp_path: Path) -> None:
    cases = {
        (".metadata", "__0_0.distcp"): ".metadata",
        ("pytorch_model_fsdp_0/.metadata", "pytorch_model_fsdp_0/__0_0.distcp"):
            "pytorch_model_fsdp_0/.metadata",
        (".metadata",): None,
        ("__0_0.distcp",): None,
        (".metadata", "other/__0_0.distcp"): None,
        (".metadata", "__0_0.distcp", "model.safetensors"): None,
        (".metadata", "__0_0.distcp", "pytorch_model.bin"): None,
        ("model/.metadata", "model/__0_0.distcp"): None,
    }  # fmt: skip
    for number, (files, wanted) in enumerate(cases.items()):
        for file in files:
            path = tmp_path / str(number) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert index_among(files) == metadata_of(tmp_path / str(number)) == wanted
