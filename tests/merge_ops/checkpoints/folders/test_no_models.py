"""Folders that are no model, or not yet one: each is told what it is, and the way out."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.folders.folder_verdict import KINDS
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, MissingModelError
from orchestration.commands.models.readable_models import readable
from tests.models.verdict_folders import INDEX, index_only, verdict_of


def only(*names: str):
    """A spoiler that leaves these files, with a few bytes in each."""

    def spoil(folder: Path) -> None:
        shutil.rmtree(folder)
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}" if name.endswith(".json") else "x")

    return spoil


def cloned(folder: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (folder / "model.safetensors").write_text(text + "x" * (134 - len(text)))


def cloned_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")


def dead_link(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../../blobs/0a1b")


def dead_config(folder: Path) -> None:
    """Without its config a model would be merged by names alone, and no word said."""
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("../../blobs/0a1b")


def half_by_aria(folder: Path) -> None:
    (folder / "model.safetensors.aria2").write_bytes(b"\0\1")


def half_from_the_hub(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    place = folder / ".cache" / "huggingface" / "download"
    place.mkdir(parents=True)
    (place / "model.safetensors.0a1b.incomplete").write_bytes(b"x")


def half_of_the_shards(folder: Path) -> None:
    index_only(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    (folder / "model-00002-of-00002.safetensors.part").write_bytes(b"x")


def shards_without_index(folder: Path) -> None:
    index_only(folder)
    (folder / INDEX).unlink()


def one_shard_without_index(folder: Path) -> None:
    shards_without_index(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def unmerged(folder: Path) -> None:
    """A model saved with its adapter on it: weights under base_layer, and factors beside."""
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{at}.base_layer.weight": torch.ones(8, 8),
        f"{at}.lora_A.default.weight": torch.ones(2, 8),
        f"{at}.lora_B.default.weight": torch.ones(8, 2),
        "base_model.model.model.norm.weight": torch.ones(8),
    }
    save_file(tensors, folder / "model.safetensors")


def model_called_an_adapter(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (cloned, "incomplete", "model.safetensors is a pointer of git-lfs; run `git lfs pull`"),
        (cloned_tokenizer, "incomplete", "tokenizer.json is a pointer of git-lfs"),
        (
            dead_link,
            "incomplete",
            r"model.safetensors is a link to ../../blobs/0a1b, which is gone",
        ),
        (dead_config, "incomplete", r"config.json is a link to ../../blobs/0a1b, which is gone"),
        (half_by_aria, "incomplete", "still being downloaded by aria2"),
        (
            half_from_the_hub,
            "incomplete",
            r"its download broke off \(.cache/huggingface/download/m",
        ),
        (half_of_the_shards, "incomplete", r"is not there; .* a download broke off here \(model-0"),
        (shards_without_index, "incomplete", "they are shards without their index"),
        (one_shard_without_index, "incomplete", "by its name one of 2 shards, and no index"),
        (only("pytorch_model-00003-of-00007.bin"), "incomplete", "one of 7 shards.*call it pyt"),
        (unmerged, "model", r"was not merged in: .*merge_and_unload\(\)"),
        (model_called_an_adapter, "model", "is called an adapter's, but its tensors are a model's"),
        (
            only("zero_to_fp32.py", "latest", "config.json"),
            "training_state",
            "zero_to_fp32.py .*OUT",
        ),
        (
            only("pytorch_model_fsdp_0/__0_0.distcp"),
            "training_state",
            "dcp_to_torch .*_fsdp_0 pyto",
        ),
        (only("__0_0.distcp", "config.json"), "training_state", "format_utils dcp_to_torch"),
        (only("iter_01/mp_rank_00/model_optim_rng.pt"), "training_state", "state of Megatron"),
        (
            only("checkpoint-9/model.safetensors", "checkpoint-10/model.safetensors"),
            "training_state",
            "sub-folders .checkpoint-9, checkpoint-10.* such as .*/checkpoint-10",
        ),
        (only("consolidated.00.pth", "consolidated.01.pth"), "training_state", "holds 2 slices"),
        (only("optimizer.pt", "rng_state.pth"), "training_state", "state of a training .optimizer"),
        (
            only("model_index.json", "unet/a.safetensors", "vae/b.bin"),
            "diffusers_pipeline",
            "unet/, v",
        ),
        (only("refs/main", "snapshots/0a/model.safetensors"), "wrapped", r"/snapshots/0a"),
        (only("README.md", "final/model.safetensors"), "wrapped", r"sub-folders .final/.; name"),
        (only("q4.gguf"), "quantized", "holds quantized weights .q4.gguf.; merge the"),
        (only("config.json", "tf_model.h5"), "foreign", "tf_model.h5: TensorFlow"),
        (only("config.json", "flax_model.msgpack"), "foreign", "msgpack: Flax"),
        (only("model.onnx"), "foreign", "model.onnx: ONNX"),
        (only("weights.npz", "config.json"), "foreign", "weights.npz: NumPy or old MLX"),
        (only("a.pt", "b.pt"), "ambiguous", r"2 files of pickled weights and no index"),
        (only("adapter_config.json", "config.json"), "adapter", "adapter without its weights"),
    ],
)
def test_what_is_no_model_is_told_with_the_way_out(folder, spoil, kind, message):
    spoil(folder)
    verdict = verdict_of(folder)
    assert (verdict.kind, verdict.mergeable) == (kind, False)
    assert kind in KINDS
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint("m", FolderSource(readable(folder)))


def test_empty_folders_and_configs_alone(tmp_path):
    assert verdict_of(tmp_path).kind == "empty"
    with pytest.raises(MissingModelError, match="does not exist or is empty"):
        open_checkpoint("m", FolderSource(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert verdict_of(tmp_path).kind == "no_weights"
