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
from typing import Any

import numpy as np

from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    Stored,
    TensorSource,
    source_of,
    stacked_digest,
)
from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.header import FLOAT_DTYPES, read_header
from merge_ops.errors import Caution, CheckpointError, CompatibilityError, Fault
from merge_ops.sources.lora.diffusion_targets import (
    KOHYA,
    Target,
    is_encoder,
    part_and_path,
    targets_in,
)
from merge_ops.sources.lora.low_rank import LowRank
from merge_ops.sources.row_ranges import RowRange, WithRows

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
_ITEM = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


def is_diffusion_adapter(names: Collection[str]) -> bool:
    """Return whether tensors are those of an image model's adapter, by their names."""
    return any(
        (KOHYA.match(name) or _DIFFUSERS.match(name))
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
    targets = targets_in(base)
    held = {part for part, _ in targets}
    overlays: dict[str, TensorSource] = {}
    changed: dict[Target, str] = {}
    elsewhere: list[str] = []
    lacking: list[str] = []
    for module, factors in modules.items():
        part, path = part_and_path(module)
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


def _is_of_another_encoder(base: Checkpoint, target: Target, factors: Mapping[str, Stored]) -> bool:
    """Whether a change is for the other text encoder of a pipeline, which has another width.

    In the folder of one encoder nothing but its shapes tells which of them it is.
    """
    return is_encoder(base) and not _fits(base.tensors[target.tensor].shape, factors)


def _fits(shape: tuple[int, ...], factors: Mapping[str, Stored]) -> bool:
    """Whether a change has a weight's shape; kernels of one element may be left out."""

    def plain(shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[:2] if set(shape[2:]) <= {1} else shape

    return plain((factors["up"].shape[0], *factors["down"].shape[1:])) == plain(shape)


def _change(
    name: str,
    base: Checkpoint,
    adapter: Checkpoint,
    module: str,
    factors: Mapping[str, Stored],
    target: Target,
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
        parts = ", ".join(sorted({part_and_path(module)[0] for module in elsewhere}))
        yield Caution(
            name,
            f"changes {len(elsewhere)} modules of {parts} too, which {base.name} does not hold;"
            " they are left out",
            "Merge the adapter into the folders of these parts as well",
        )
