"""Has diffusers make a tiny Stable Diffusion XL, rename it, and fuse adapters into it.

    .venv-oracle/bin/python tests/oracle/peers/run_diffusers.py CASES.json OUTCOMES.json

CASES.json is a list of {"name", "do", "model", "file", "out"}. `make` writes the parts of a
pipeline as folders below `out` (unet, text_encoder, text_encoder_2). `fuse` loads the adapter
`file` into the pipeline `model` and writes its parts below `out` with it in them. `rename` reads a
single-file checkpoint and writes its UNet and its second text encoder under diffusers' names, with
the config of the pipeline `model`. OUTCOMES.json maps each name to null, or to the error's text.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "cross_attention_dim": 64,
    "attention_head_dim": (2, 4, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}


def text(width: int, act: str) -> CLIPTextConfig:
    """The config of a text encoder of three layers."""
    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=99,
        max_position_embeddings=16,
        projection_dim=width,
        hidden_act=act,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def make(case: dict[str, str]) -> None:
    torch.manual_seed(3)
    out = Path(case["out"])
    UNet2DConditionModel(**UNET).save_pretrained(out / "unet")
    CLIPTextModel(text(16, "quick_gelu")).save_pretrained(out / "text_encoder")
    CLIPTextModelWithProjection(text(32, "gelu")).save_pretrained(out / "text_encoder_2")


def fuse(case: dict[str, str]) -> None:
    model, out = Path(case["model"]), Path(case["out"])
    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    first = CLIPTextModel.from_pretrained(model / "text_encoder")
    second = CLIPTextModelWithProjection.from_pretrained(model / "text_encoder_2")
    mixin = StableDiffusionXLLoraLoaderMixin
    file = Path(case["file"])
    tensors, alphas = mixin.lora_state_dict(
        str(file.parent), weight_name=file.name, unet_config=unet.config
    )[:2]
    mixin.load_lora_into_unet(tensors, network_alphas=alphas, unet=unet)
    for prefix, encoder in (("text_encoder", first), ("text_encoder_2", second)):
        if any(name.startswith(f"{prefix}.") for name in tensors):
            mixin.load_lora_into_text_encoder(
                tensors, network_alphas=alphas, text_encoder=encoder, prefix=prefix
            )
    for name, part in (("unet", unet), ("text_encoder", first), ("text_encoder_2", second)):
        _bake(part)
        folder = out / name
        folder.mkdir(parents=True)
        save_file(
            {key: value.contiguous() for key, value in part.state_dict().items()},
            folder / "model.safetensors",
        )


def _bake(model: torch.nn.Module) -> None:
    """Put every adapter of a model into its weights, in place of the layers that PEFT wrapped."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules: list[tuple[str, Any]] = list(model.named_modules())
    for name, layer in modules:
        if not isinstance(layer, BaseTunerLayer):
            continue
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())


def rename(case: dict[str, str]) -> None:
    out, whole = Path(case["out"]), load_file(case["file"])
    config = dict(UNet2DConditionModel.load_config(Path(case["model"]) / "unet"))
    unet = convert_ldm_unet_checkpoint(dict(whole), config)
    encoder = CLIPTextModelWithProjection.from_pretrained(Path(case["model"]) / "text_encoder_2")
    second = convert_open_clip_checkpoint(encoder, dict(whole), "conditioner.embedders.1.model.")
    out.mkdir(parents=True)
    save_file({key: value.contiguous() for key, value in unet.items()}, out / "unet.safetensors")
    save_file({key: value.contiguous() for key, value in second.items()}, out / "te2.safetensors")


def main(cases_file: str, outcomes_file: str) -> None:
    """Runs every case and writes what came of it."""
    torch.set_num_threads(1)
    outcomes: dict[str, str | None] = {}
    for case in json.loads(Path(cases_file).read_text(encoding="utf-8")):
        try:
            {"make": make, "fuse": fuse, "rename": rename}[case["do"]](case)
            outcomes[case["name"]] = None
        except Exception as error:  # the text is the outcome; the caller says what it expects
            outcomes[case["name"]] = f"{type(error).__name__}: {error}"
    Path(outcomes_file).write_text(json.dumps(outcomes, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
