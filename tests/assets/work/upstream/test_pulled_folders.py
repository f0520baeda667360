"""Local folders that are no single sound model are refused before anything is published."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.errors import CheckpointError
from resources.errors import ModelSourceError
from resources.store import ArtifactStore
from resources.upstream.source import wanted_files
from tests.models import checkpoint_factory as factory

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)
INDEX = "model.safetensors.index.json"
FACTORS = {
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 32),
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.ones(32, 2),
}


@pytest.fixture
def store(tmp_path) -> ArtifactStore:
    return ArtifactStore.open((tmp_path / "store").as_uri())


@pytest.fixture
def base(tmp_path) -> Path:
    return factory.write_family(tmp_path, SHAPE, experts=0).base


def pulled(store: ArtifactStore, folder: Path, **entry: Any):
    return pull_model(store, UpstreamModel("m", str(folder), **entry), folder.parent)


def write_adapter(folder: Path) -> None:
    save_file(FACTORS, folder / "adapter_model.safetensors")
    factory.write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 2})


def test_a_folder_with_a_model_and_an_adapter_is_not_published(store, base):
    write_adapter(base)
    with pytest.raises(CheckpointError, match=r"^model 'm' \(.*\): .* can be read in two ways"):
        pulled(store, base)
    assert store.kinds() == []


def test_a_model_cloned_without_its_large_files_is_not_published(store, base):
    (base / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"tokenizer.json is a pointer of git-lfs"):
        pulled(store, base)
    assert store.kinds() == []


def test_an_adapter_with_the_config_of_its_base_is_an_adapter(store, base):
    (base / "model.safetensors").unlink()
    write_adapter(base)
    assert pulled(store, base, kind="lora", base="b").tensors == 2
    with pytest.raises(CheckpointError, match="is a LoRA adapter; say `kind: lora` and name its"):
        pulled(store, base)


def test_a_link_to_nothing_is_named(store, base):
    (base / "model.safetensors").unlink()
    (base / "model.safetensors").symlink_to("../../blobs/0a1b")
    with pytest.raises(ModelSourceError, match=r"is a link to ../../blobs/0a1b, which is gone"):
        pulled(store, base)


def test_what_is_pulled_is_what_is_read(store, base):
    """An older index and half of its shards stay behind, and so do other layouts and dtypes."""
    before = factory.read_tensors(base)
    factory.write_weights(base, factory.base_tensors(SHAPE, seed=7), 2)
    (base / "model-00001-of-00002.safetensors").unlink()
    for name in ("consolidated.safetensors", "model.fp16.safetensors"):
        save_file({"a": torch.ones(2)}, base / name)
    files = pulled(store, base).artifact.files
    assert [name for name in files if "safetensors" in name] == ["model.safetensors"]
    assert pulled(store, base).tensors == len(before)


SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_names_alone_tell_two_sets_of_weights():
    with pytest.raises(ModelSourceError, match=r"hf://a/b holds two sets of weights, model.safete"):
        wanted_files(["model.safetensors", INDEX, *SHARDS], "hf://a/b")


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([INDEX, *SHARDS, "consolidated.safetensors"], [*SHARDS, INDEX]),
        ([INDEX, *SHARDS, "model.fp16.safetensors", "pytorch_model.bin"], [*SHARDS, INDEX]),
        (["pytorch_model.bin", "value_head.safetensors"], ["pytorch_model.bin", "value_head.safeten"
                                                           "sors"]),
        (["consolidated.safetensors", "params.json"], ["consolidated.safetensors", "params.json"]),
        (["model.fp16.safetensors"], ["model.fp16.safetensors"]),
    ],
)  # fmt: skip
def test_names_are_chosen_as_transformers_does(names, taken):
    assert wanted_files(names, "here") == sorted(taken)


def test_a_link_out_of_the_folder_is_pulled_where_the_catalog_says_so(store, base):
    (base.parent / "private").write_text("a private file")
    (base / "LICENSE").symlink_to("../private")
    with pytest.raises(ModelSourceError, match=r"LICENSE is a link out .*`follow_links: true`"):
        pulled(store, base)
    assert store.kinds() == []
    artifact = pulled(store, base, follow_links=True).artifact
    assert artifact.read_bytes("LICENSE") == b"a private file"


@pytest.mark.parametrize("name", ["LICENSE", "tokenizer.json", "1_Pooling/config.json"])
def test_a_pipe_does_not_hold_up_a_pull(store, base, name):
    (base / name).unlink(missing_ok=True)
    (base / name).parent.mkdir(exist_ok=True)
    os.mkfifo(base / name)
    with pytest.raises(ModelSourceError, match=f"{name} is a named pipe, and no file"):
        pulled(store, base)


def test_a_side_file_of_gigabytes_is_refused_before_it_is_read(store, base):
    with (base / "notes.txt").open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(ModelSourceError, match=r"notes.txt has 10737418240 bytes, and a file besi"):
        pulled(store, base)


def test_a_config_that_claims_more_than_its_weights_is_not_pulled(store, base):
    factory.edit_config(base, num_hidden_layers=100_000)
    with pytest.raises(CheckpointError, match=r"num_hidden_layers is 100000, and there are"):
        pulled(store, base)
    assert store.kinds() == []
