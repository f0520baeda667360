"""A Stable Diffusion XL under the names of its original code, and adapters of it.

The names are written from the structure of the original UNet (openaimodel.py) and of OpenCLIP; the
oracle test has diffusers rename them back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
UNET, FIRST, SECOND = (
    "model.diffusion_model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
)
_OUTSIDE = {
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_INSIDE = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_name(name: str, attended: frozenset[int] = frozenset({0, 1})) -> str:
    """The original name of a tensor of diffusers' UNet; `attended` are up blocks with attention."""
    for theirs, ours in _OUTSIDE.items():
        if name.startswith(theirs):
            return ours + _inside(name.removeprefix(theirs), ".resnets." in theirs)
    found = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", name)
    assert found, name
    side, level, kind, at, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = 3 * level + 1 if side == "down" else 3 * level
    blocks = "input_blocks" if side == "down" else "output_blocks"
    if kind == "downsamplers":
        return f"{blocks}.{first + 2}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":
        return f"{blocks}.{first + 2}.{2 if level in attended else 1}.{rest}"
    place = 0 if kind == "resnets" else 1
    return f"{blocks}.{first + at}.{place}.{_inside(rest, kind == 'resnets')}"


def _inside(rest: str, resnet: bool) -> str:
    part, dot, last = rest.partition(".")
    return f"{_INSIDE[part]}{dot}{last}" if resnet else rest


def open_clip(encoder: Mapping[str, torch.Tensor]) -> Tensors:
    """A text encoder of transformers as OpenCLIP keeps it."""
    made: Tensors = {}
    layers = 1 + max(int(found[1]) for name in encoder if (found := _LAYER.search(name)))
    at = "text_model.encoder.layers"
    for layer in range(layers):
        ours, theirs = f"transformer.resblocks.{layer}", f"{at}.{layer}"
        for kind in ("weight", "bias"):
            packed = [encoder[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            made[f"{ours}.attn.in_proj_{kind}"] = torch.cat(packed)
            for old, new in (
                ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
            ):  # fmt: skip
                made[f"{ours}.{old}.{kind}"] = encoder[f"{theirs}.{new}.{kind}"]
    made["token_embedding.weight"] = encoder["text_model.embeddings.token_embedding.weight"]
    made["positional_embedding"] = encoder["text_model.embeddings.position_embedding.weight"]
    for kind in ("weight", "bias"):
        made[f"ln_final.{kind}"] = encoder[f"text_model.final_layer_norm.{kind}"]
    made["text_projection"] = encoder["text_projection.weight"].t().contiguous()
    return made


_LAYER = re.compile(r"layers\.(\d+)\.")


def single_file(unet: Tensors, first: Tensors, second: Tensors) -> Tensors:
    """A single-file checkpoint of these parts, with a VAE of one tensor."""
    return {
        **{UNET + original_name(name): value for name, value in unet.items()},
        **{FIRST + name: value for name, value in first.items()},
        **{SECOND + name: value for name, value in open_clip(second).items()},
        "first_stage_model.decoder.conv_in.weight": torch.ones(4, 4, 3, 3),
    }


def adapter_of(
    modules: Mapping[str, tuple[int, ...]],
    seed: int,
    roles: tuple[str, str],
    alpha: float | None = None,
    rank: int = 3,
) -> Tensors:
    """Factors for modules (name → shape of the weight), with or without an alpha for each."""
    generator = torch.Generator().manual_seed(seed)
    made: Tensors = {}
    for module, shape in modules.items():
        kernel = (1,) * len(shape[2:])
        down, up = (rank, *shape[1:]), (shape[0], rank, *kernel)
        made[f"{module}.{roles[0]}.weight"] = 0.3 * torch.randn(down, generator=generator)
        made[f"{module}.{roles[1]}.weight"] = 0.3 * torch.randn(up, generator=generator)
        if alpha is not None:
            made[f"{module}.alpha"] = torch.tensor(alpha)
    return made


def write(file: Path, tensors: Mapping[str, torch.Tensor]) -> Path:
    """Write a safetensors file; returns it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, file)
    return file
