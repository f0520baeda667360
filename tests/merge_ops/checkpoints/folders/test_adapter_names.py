"""Kinds of adapters, told from the names of their tensors, and their refusal as models."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.folders.adapter_names import adapter_names
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError
from merge_ops.sources.lora.adapter_files import is_adapter
from merge_ops.sources.lora.adapters import read_adapter
from tests.models import checkpoint_factory as factory

Q = "model.layers.0.self_attn.q_proj"
KINDS = {
    "LoRA": (f"base_model.model.{Q}.lora_A.weight", f"base_model.model.{Q}.lora_B.weight"),
    "DoRA adapter": (
        f"base_model.model.{Q}.lora_A.weight", f"base_model.model.{Q}.lora_B.weight",
        f"base_model.model.{Q}.lora_magnitude_vector",
    ),
    "AdaLoRA adapter": (f"base_model.model.{Q}.lora_A", f"base_model.model.{Q}.lora_E"),
    "LoHa adapter": (f"base_model.model.{Q}.hada_w1_a", f"base_model.model.{Q}.hada_w1_b"),
    "LoKr adapter": (f"base_model.model.{Q}.lokr_w1", f"base_model.model.{Q}.lokr_w2"),
    "IA3 adapter": (f"base_model.model.{Q}.ia3_l",),
    "VeRA adapter": (f"base_model.model.{Q}.vera_lambda_b", "base_model.vera_A"),
    "OFT adapter": (f"base_model.model.{Q}.oft_r",),
    "prompt or prefix adapter": ("prompt_embeddings",),
    "kohya LoRA": (
        "lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight",
        "lora_unet_down_blocks_1_attentions_0_proj_in.lora_up.weight",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha",
    ),
    "LyCORIS adapter": ("lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",),
    "diffusers LoRA": (
        "unet.down_blocks.1.attentions.0.to_q.lora_A.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight",
    ),
    "ComfyUI LoRA": ("diffusion_model.blocks.0.attn.qkv.lora_A.weight",),
    "MLX LoRA": (f"{Q}.lora_a", f"{Q}.lora_b"),
}  # fmt: skip
FILES = ("adapter_model.safetensors", "model.safetensors", "x.safetensors")
OTHERS = ("diffusers LoRA", "unet.mid_block.attn1.processor.to_q_lora.down.weight")
MODELS = (
    "prompt_encoder.shared_embedding.positional_embedding",
    "model.layers.0.attn.w_lora.lora.0.weight",
    "transformer.h.0.attn.c_attn.weight",
    "down_blocks.0.resnets.0.conv1.weight",
    "vision_model.encoder.layers.0.mlp.fc1.weight",
)


def write(folder: Path, names: tuple[str, ...], file: str) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: torch.ones(2, 2) for name in names}, folder / file)
    return folder


@pytest.mark.parametrize(("kind", "names"), list(KINDS.items()))
@pytest.mark.parametrize(
    "file", ["adapter_model.safetensors", "model.safetensors", "x.safetensors"]
)
@pytest.mark.parametrize("config", [True, False])
def test_an_adapter_is_told_by_its_tensors_whatever_its_file_is_called(
    tmp_path, kind, names, file, config
):
    folder = write(tmp_path / "a", names, file)
    if config:
        factory.write_json(folder / "config.json", factory.LLAMA.config())
    verdict = read_folder(FolderSource(folder)).verdict
    assert (verdict.kind, verdict.adapter) == ("adapter", kind)
    assert verdict.mergeable
    for source in (FolderSource(folder), FolderSource(folder, file)):
        with pytest.raises(CheckpointError, match=rf"is a {kind}.* which is no model without its"):
            open_checkpoint("m", source)


@pytest.mark.parametrize("name", MODELS)
def test_models_with_like_names_are_none(name):
    assert adapter_names([name]).kind is None
    assert adapter_names([name]).parts == ()


def test_raw_factors_of_gpt2_are_no_diffusers_lora():
    found = adapter_names(["transformer.h.0.attn.c_attn.lora_A.weight"])
    assert found.kind == "LoRA"
    assert adapter_names([OTHERS[1]]).kind == OTHERS[0]


def test_modules_saved_whole_leave_it_an_adapter():
    names = [*KINDS["LoRA"], "base_model.model.lm_head.weight"]
    names += [f"base_model.model.model.layers.{layer}.norm.weight" for layer in range(9)]
    assert adapter_names(names).kind == "LoRA"
    embedding = "base_model.model.model.embed_tokens"
    names = [*KINDS["LoRA"], f"{embedding}.lora_embedding_A", f"{embedding}.base_layer.weight"]
    assert adapter_names(names).kind == "LoRA"


@pytest.mark.parametrize("kind", ["kohya LoRA", "LyCORIS adapter", "diffusers LoRA", "MLX LoRA"])
def test_adapters_of_other_programs_are_refused_by_their_kind(tmp_path, kind):
    folder = write(tmp_path / "a", KINDS[kind], "style.safetensors")
    with pytest.raises(
        CheckpointError, match=rf"\(style.safetensors\) is a {kind}, and no adapter"
    ):
        read_adapter("m", FolderSource(folder))


def test_an_adapter_beside_a_model_is_read_where_it_is_named_as_one(tmp_path):
    folder = write(tmp_path / "a", KINDS["LoRA"], "adapter_model.safetensors")
    factory.write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 2})
    factory.write_json(folder / "config.json", factory.LLAMA.config())
    assert is_adapter([path.name for path in folder.iterdir()])
    write(folder, ("model.norm.weight",), "model.safetensors")
    assert not is_adapter([path.name for path in folder.iterdir()])
    assert set(read_adapter("m", FolderSource(folder)).factors) == {Q}
