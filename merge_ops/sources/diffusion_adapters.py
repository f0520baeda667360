"""LoRA adapters of image models, as kohya's scripts and diffusers save them: one file, no config.

    kohya       lora_unet_input_blocks_4_1_proj_in.lora_down.weight   [r, in]  (or [r, in, h, w])
                …lora_up.weight  [out, r]     …alpha  []     lora_te1_…, lora_te2_… for the encoders
    diffusers   unet.down_blocks.1.attentions.0.proj_in.lora_A.weight, .lora_B.weight
                (older: .lora.down.weight; attn1.processor.to_q_lora.down.weight)

The change is alpha / r · up @ down, with alpha = r where no alpha is stored (kohya-ss/sd-scripts,
networks/lora.py). Names of modules are the original code's or diffusers', with dots or with `_`;
the checkpoint may have either. Only W + scale · B A is taken: LoHa, LoKr, DoRA and Tucker factors
are refused by name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from merge_ops.checkpoints.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    Stored,
    TensorSource,
    source_of,
    stacked_digest,
)
from merge_ops.checkpoints.header import FLOAT_DTYPES, read_header
from merge_ops.errors import Caution, CheckpointError, CompatibilityError, Fault
from merge_ops.sources.low_rank import LowRank
from merge_ops.sources.row_ranges import RowRange, WithRows
from merge_ops.sources.unet_names import clip_names, diffusers_name, original_names

_ROLES = {
    "lora_down.weight": "down",
    "lora_A.weight": "down",
    "lora.down.weight": "down",
    "lora_linear_layer.down.weight": "down",
    "lora_up.weight": "up",
    "lora_B.weight": "up",
    "lora.up.weight": "up",
    "lora_linear_layer.up.weight": "up",
    "alpha": "alpha",
}
_KEY = re.compile(rf"(?P<module>.+?)\.(?P<role>{'|'.join(map(re.escape, _ROLES))})")
_PROCESSOR = re.compile(
    r"(?P<module>.+)\.processor\.(?P<part>to_q|to_k|to_v|to_out)_lora\.(?P<role>down|up)\.weight"
)
_KOHYA = re.compile(r"lora_(?:unet|te\d?|transformer)_")
_DIFFUSERS = re.compile(
    r"(?:unet|text_encoder(?:_\d)?|transformer|down_blocks|mid_block|up_blocks)\."
)
_FOREIGN = {
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "a Tucker factor (LoCon with `lora_mid`)",
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
}
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
_ITEM = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


@dataclass(frozen=True)
class _Target:
    """Where a module's weight lies: a tensor, or one of three equal ranges of its rows."""

    tensor: str
    third: int | None = None


def is_diffusion_adapter(names: Collection[str]) -> bool:
    """Return whether tensors are those of an image model's adapter, by their names."""
    return any(
        (_KOHYA.match(name) or _DIFFUSERS.match(name))
        and (_KEY.fullmatch(name) or _PROCESSOR.fullmatch(name) or _foreign(name))
        for name in names
    )


def holds_diffusion_adapter(source: ByteSource) -> bool:
    """Return whether a place holds one weight file, which is an adapter of an image model."""
    files = source.sizes()
    weights = [file for file in files if file.endswith(".safetensors")]
    if len(weights) != 1 or "adapter_config.json" in files:
        return False
    try:
        return is_diffusion_adapter(_opened("", source, None).tensors)
    except CheckpointError:
        return False


def open_diffusion_adapter(
    name: str, base: Checkpoint, source: ByteSource, digest: str | None = None
) -> Checkpoint:
    """Return the checkpoint that an image model becomes with an adapter on it, called `name`.

    `source` holds one safetensors file. Reads headers, and the adapter's alphas. Parts of the
    adapter for a model that `base` does not hold (a text encoder, beside a UNet's folder) are told
    in a caution. Raises CheckpointError for a damaged file, CompatibilityError with every tensor
    that cannot be used.
    """
    adapter = _opened(name, source, digest)
    faults: list[Fault] = []
    modules = _by_module(adapter, faults)
    targets = _targets(base)
    held = {part for part, _ in targets}
    overlays: dict[str, TensorSource] = {}
    changed: dict[_Target, str] = {}
    elsewhere: list[str] = []
    lacking: list[str] = []
    for module, factors in modules.items():
        part, path = _part_and_path(module)
        target = targets.get((part, path))
        if part not in held or (target and _is_of_another_encoder(base, target, factors)):
            elsewhere.append(module)
        elif target is None:
            lacking.append(module)
        elif changed.setdefault(target, module) != module:
            problem = f"changes the same weight as '{changed[target]}'; keep one of them"
            faults.append(Fault(f"'{module}'", problem))
        else:
            _change(name, base, adapter, module, factors, target, overlays, faults)
    if lacking:
        problem = (
            f"and {len(lacking) - 1} more modules are changed" if lacking[1:] else "is changed"
        )
        problem += f", which {base.name} lacks under the names of either library: is it the"
        faults.append(Fault(f"'{lacking[0]}'", f"{problem} checkpoint that the adapter is for?"))
    if not overlays and not faults:
        faults.append(Fault(name, f"changes no tensor of {base.name}; is that its checkpoint?"))
    if faults:
        raise CompatibilityError(f"adapter {source.location} does not fit {base.name}", faults)
    return dataclasses.replace(
        base, name=name, digest=stacked_digest([base.digest, digest]),
        overlays={**base.overlays, **overlays}, made_of=(base, adapter),
        cautions=(*base.cautions, *_cautions(name, base, elsewhere)),
    )  # fmt: skip


def _opened(name: str, source: ByteSource, digest: str | None) -> Checkpoint:
    """The adapter's one file by its header."""
    files = source.sizes()
    weights = [file for file in files if file.endswith(".safetensors")]
    if len(weights) != 1:
        what = ", ".join(weights) or "none"
        problem = (
            f"one .safetensors file of an adapter was expected; there is {what}. Name the file"
        )
        raise CompatibilityError(
            f"adapter {source.location} cannot be merged", [Fault("", problem)]
        )
    file = weights[0]
    entries = read_header(
        f"{source.location}/{file}", file, files[file], lambda at, n: read_file(source, file, at, n)
    )
    return Checkpoint(name, source, entries, {}, digest, files)


def _by_module(adapter: Checkpoint, faults: list[Fault]) -> dict[str, dict[str, Stored]]:
    """The factors of each module, by role: down, up and perhaps alpha."""
    modules: dict[str, dict[str, Stored]] = {}
    for key, entry in adapter.tensors.items():
        foreign, found, processor = _foreign(key), _KEY.fullmatch(key), _PROCESSOR.fullmatch(key)
        if foreign:
            faults.append(Fault(f"'{key}'", f"belongs to {foreign}, which cannot be merged here"))
        elif processor:
            part = f"{processor['part']}{'.0' if processor['part'] == 'to_out' else ''}"
            roles = modules.setdefault(f"{processor['module']}.{part}", {})
            roles[processor["role"]] = Stored(adapter, key, entry)
        elif found and entry.dtype in FLOAT_DTYPES:
            roles = modules.setdefault(found["module"], {})
            roles[_ROLES[found["role"]]] = Stored(adapter, key, entry)
        else:
            faults.append(Fault(f"'{key}'", "is no float factor of a LoRA that is known here"))
    for module, roles in modules.items():
        faults.extend(_factor_faults(module, roles))
    return {module: roles for module, roles in modules.items() if {"down", "up"} <= roles.keys()}


def _foreign(key: str) -> str | None:
    """The kind of adapter that a tensor belongs to where it is no LoRA."""
    last = key.rsplit(".", 2)[-2:]
    return next(
        (kind for mark, kind in _FOREIGN.items() if any(part.startswith(mark) for part in last)),
        None,
    )


def _factor_faults(module: str, roles: Mapping[str, Stored]) -> Iterator[Fault]:
    absent = [role for role in ("down", "up") if role not in roles]
    if absent:
        yield Fault(f"'{module}'", f"has no {absent[0]} factor")
        return
    down, up = roles["down"].shape, roles["up"].shape
    alike = len(down) == len(up) and len(down) in (2, 4) and set(up[2:]) <= {1}
    if not alike or down[0] != up[1] or not down[0]:
        expected = "[r, in] and [out, r], or those of a convolution, are expected"
        yield Fault(f"'{module}'", f"has factors {list(down)} and {list(up)}; {expected}")


def _part_and_path(module: str) -> tuple[str, str]:
    """The part of the image model that a module is of, and its path with `_` for dots.

    `lora_te2_text_model_x` gives (te2, text_model_x), `unet.conv_in` gives (unet, conv_in).
    """
    part, path = "unet", module
    if _KOHYA.match(module):
        part, _, path = module.removeprefix("lora_").partition("_")
    elif module.startswith(tuple(f"{each}." for each in (*_IMAGE, *_ENCODER))):
        part, _, path = module.partition(".")
    return part, path.replace(".", "_")


def _targets(base: Checkpoint) -> dict[tuple[str, str], _Target]:
    """Every module of the base by the part and the path that an adapter may name it by."""
    targets: dict[tuple[str, str], _Target] = {}
    alone = _ENCODER if _is_encoder(base) else _IMAGE
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
                targets.setdefault((part, path.replace(".", "_")), _Target(tensor, third))
    return targets


def _is_of_another_encoder(
    base: Checkpoint, target: _Target, factors: Mapping[str, Stored]
) -> bool:
    """Whether a change is for the other text encoder of a pipeline, which has another width.

    In the folder of one encoder nothing but its shapes tells which of them it is.
    """
    return _is_encoder(base) and not _fits(base.tensors[target.tensor].shape, factors)


def _is_encoder(base: Checkpoint) -> bool:
    """Whether a model is one text encoder by itself; transformers 5 leaves `text_model.` out."""
    embedding = "embeddings.token_embedding.weight"
    return embedding in base.tensors or f"text_model.{embedding}" in base.tensors


def _fits(shape: tuple[int, ...], factors: Mapping[str, Stored]) -> bool:
    """Whether a change has a weight's shape; kernels of one element may be left out."""

    def plain(shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:2] if set(shape[2:]) <= {1} else shape

    return plain((factors["up"].shape[0], *factors["down"].shape[1:])) == plain(shape)


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


def _change(
    name: str,
    base: Checkpoint,
    adapter: Checkpoint,
    module: str,
    factors: Mapping[str, Stored],
    target: _Target,
    overlays: dict[str, TensorSource],
    faults: list[Fault],
) -> None:
    """Put one module's change over its tensor; what does not fit goes to `faults`."""
    down, up = factors["down"], factors["up"]
    whole = overlays.get(target.tensor) or source_of(base, target.tensor)
    assert whole is not None  # the targets are the base's tensors
    rows = whole.shape[0] if target.third is None else whole.shape[0] // 3
    part = whole if target.third is None else RowRange(whole, target.third * rows, rows)
    if not _fits(part.shape, factors) or whole.dtype not in FLOAT_DTYPES:
        made = [up.shape[0], *down.shape[1:]]
        problem = f"makes a change of {made}, but '{target.tensor}' is {whole.dtype}"
        faults.append(Fault(f"'{module}'", f"{problem} {list(part.shape)} in {base.name}"))
        return
    alpha = _number(adapter, factors["alpha"]) if "alpha" in factors else float(down.shape[0])
    if not np.isfinite(alpha):
        faults.append(Fault(f"'{module}.alpha'", f"is {alpha}; a finite number is expected"))
        return
    change = LowRank(name, part, up, down, alpha / down.shape[0], False)
    overlays[target.tensor] = (
        change if target.third is None else WithRows(whole, target.third * rows, change)
    )


def _number(adapter: Checkpoint, stored: Stored) -> float:
    """The value of a tensor of one element."""
    entry: Any = stored.entry
    if entry.count != 1:
        return float("nan")
    raw = read_file(adapter.source, entry.file, entry.offset, entry.nbytes)
    if entry.dtype == "BF16":
        return float(np.frombuffer(b"\0\0" + raw, "<f4")[0])
    return float(np.frombuffer(raw, _ITEM[entry.dtype])[0]) if entry.dtype in _ITEM else np.nan


def _cautions(name: str, base: Checkpoint, elsewhere: list[str]) -> Iterator[Caution]:
    if elsewhere:
        parts = ", ".join(sorted({_part_and_path(module)[0] for module in elsewhere}))
        yield Caution(
            name,
            f"changes {len(elsewhere)} modules of {parts} too, which {base.name} does not hold;"
            " they are left out",
            "Merge the adapter into the folders of these parts as well",
        )
