"""What the parts of a Stable Diffusion UNet and its text encoders are called, by two libraries.

A single-file checkpoint has the names of the original code (`input_blocks.4.1…`), a diffusers
folder those of diffusers (`down_blocks.1.attentions.0…`), and an adapter either. The rules are
those of diffusers' own conversion for UNets of two residual blocks a level: Stable Diffusion 1, 2
and XL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_RESNET = (
    ("in_layers.0", "norm1"), ("in_layers.2", "conv1"), ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"), ("out_layers.3", "conv2"), ("skip_connection", "conv_shortcut"),
)  # fmt: skip
_OUTSIDE = {
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
}
_BLOCK = re.compile(r"(input|output)_blocks\.(\d+)\.(\d+)(?:\.(.+))?")
_LEVEL = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(\..+)?"
)
_OPENCLIP = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_OPENCLIP_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
PACKED = ("q_proj", "k_proj", "v_proj")
"""The weights that OpenCLIP keeps one below the other as `attn.in_proj`, in this order."""


def diffusers_name(module: str) -> str | None:
    """Return what diffusers calls a module of the original UNet, or None where it has no name.

    `input_blocks.4.1.proj_in` gives `down_blocks.1.attentions.0.proj_in`.
    """
    for ours, theirs in _OUTSIDE.items():
        if module == ours or module.startswith(f"{ours}."):
            return theirs + _inner(module[len(ours) :])
    found = _BLOCK.fullmatch(module)
    if found is None:
        return None
    down, number, place = found[1] == "input", int(found[2]), int(found[3])
    rest = f".{found[4]}" if found[4] else ""
    level, position = divmod(number - 1 if down else number, 3)
    side = "down_blocks" if down else "up_blocks"
    if down and position == 2:
        return f"{side}.{level}.downsamplers.0{rest.replace('.op', '.conv')}"
    if not down and rest.startswith(".conv"):
        return f"{side}.{level}.upsamplers.0{rest}"
    kind = ("resnets", "attentions")[place] if place < 2 else None
    return f"{side}.{level}.{kind}.{position}{_inner(rest)}" if kind else None


def original_names(module: str) -> Iterator[str]:
    """Yield what the original UNet calls a module of diffusers' UNet: none, one name or two.

    `down_blocks.1.attentions.0.proj_in` gives `input_blocks.4.1.proj_in`. An upsampler stands
    behind the attention of its block where there is one; both names are given.
    """
    for ours, theirs in _OUTSIDE.items():
        if module == theirs or module.startswith(f"{theirs}."):
            yield ours + _inner(module[len(theirs) :], back=True)
            return
    found = _LEVEL.fullmatch(module)
    if found is None:
        return
    side, level, kind, position, rest = found.groups()
    first = 3 * int(level) + (side == "down")
    if kind == "downsamplers":
        yield f"input_blocks.{first + 2}.0{(rest or '').replace('.conv', '.op')}"
    elif kind == "upsamplers":
        yield from (f"output_blocks.{first + 2}.{place}{rest or ''}" for place in (1, 2))
    else:
        blocks = "input_blocks" if side == "down" else "output_blocks"
        place, inner = (0, _inner(rest or "", back=True)) if kind == "resnets" else (1, rest or "")
        yield f"{blocks}.{first + int(position)}.{place}{inner}"


def _inner(rest: str, back: bool = False) -> str:
    """The part of a name inside a block; parts of attention have one name in both."""
    for pair in _RESNET:
        old, new = reversed(pair) if back else pair
        if rest == f".{old}" or rest.startswith(f".{old}."):
            return f".{new}{rest[len(old) + 1 :]}"
    return rest


def clip_names(module: str) -> Iterator[tuple[str, int | None]]:
    """Yield what transformers calls a module of OpenCLIP's text encoder.

    `transformer.resblocks.3.mlp.c_fc` gives `text_model.encoder.layers.3.mlp.fc1`. A packed module
    gives three, each with its position in the packed weight; the others have None.
    """
    found = _OPENCLIP.fullmatch(module)
    if found is None:
        return
    layer = f"text_model.encoder.layers.{found[1]}"
    if found[2] == "attn.in_proj":
        for position, part in enumerate(PACKED):
            yield f"{layer}.self_attn.{part}", position
    elif found[2] in _OPENCLIP_PARTS:
        yield f"{layer}.{_OPENCLIP_PARTS[found[2]]}", None
