"""Where an image model keeps what an adapter changes, by the names that adapters give it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.sources.lora.unet_names import clip_names, diffusers_name, original_names

KOHYA = re.compile(r"lora_(?:unet|te\d?|transformer)_")
# The places of a single-file checkpoint, each with the names that adapters give the part.
_PLACES = (
    ("model.diffusion_model.", ("unet", "transformer")),
    ("conditioner.embedders.0.transformer.", ("te1", "text_encoder")),
    ("conditioner.embedders.1.model.", ("te2", "text_encoder_2")),
    ("cond_stage_model.transformer.", ("te", "text_encoder")),
    ("cond_stage_model.model.", ("te", "text_encoder")),
)
_IMAGE = ("unet", "transformer")
_ENCODER = ("te", "te1", "te2", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Target:
    """A target is a tensor, or one of three equal ranges of its rows: a module's weight."""

    tensor: str
    third: int | None = None


def part_and_path(module: str) -> tuple[str, str]:
    """Return the part of the image model that a module is of, and its path with `_` for dots.

    `lora_te2_text_model_x` gives (te2, text_model_x), `unet.conv_in` gives (unet, conv_in).
    """
    part, path = "unet", module
    if KOHYA.match(module):
        part, _, path = module.removeprefix("lora_").partition("_")
    elif module.startswith(tuple(f"{each}." for each in (*_IMAGE, *_ENCODER))):
        part, _, path = module.partition(".")
    return part, path.replace(".", "_")


def targets_in(base: Checkpoint) -> dict[tuple[str, str], Target]:
    """Return every module of the base by the part and the path that an adapter may name it by."""
    targets: dict[tuple[str, str], Target] = {}
    alone = _ENCODER if is_encoder(base) else _IMAGE
    for tensor, entry in base.tensors.items():
        if tensor.endswith(".in_proj_weight"):
            module = tensor.removesuffix("_weight")
        elif tensor.endswith(".weight") and len(entry.shape) in (2, 4):
            module = tensor.removesuffix(".weight")
        else:
            continue
        prefix, parts = next(
            ((prefix, parts) for prefix, parts in _PLACES if tensor.startswith(prefix)), ("", alone)
        )
        for path, third in _paths(module.removeprefix(prefix)):
            for part in parts:
                targets.setdefault((part, path.replace(".", "_")), Target(tensor, third))
    return targets


def _paths(module: str) -> Iterator[tuple[str, int | None]]:
    yield module, None
    bare = module.removeprefix("text_model.")  # which transformers 5 leaves out
    if bare.startswith("encoder.layers."):
        yield from ((f"text_model.{bare}", None), (bare, None))
    other = diffusers_name(module)
    if other:
        yield other, None
    yield from ((name, None) for name in original_names(module))
    yield from clip_names(module)


def is_encoder(base: Checkpoint) -> bool:
    """Return whether a model is one text encoder by itself, with or without `text_model.`."""
    embedding = "embeddings.token_embedding.weight"
    return embedding in base.tensors or f"text_model.{embedding}" in base.tensors
