"""LoRA adapters as experts: a PEFT folder over an opened base is a checkpoint of its own.

Nothing is materialized. Of the folder (adapter_config.json, adapter_model.safetensors) only config
and header are read; the checkpoint's `overlays` compute W + scale · B A block by block. In the
shapes PEFT saves, with scale = alpha / r (alpha / sqrt(r) with `use_rslora`):

    Linear     W [out, in]     + scale · B A        A [r, in], B [out, r]
    Conv1D     W [in, out]     + scale · (B A)^T    `fan_in_fan_out`
    Embedding  W [rows, width] + scale · (B A)^T    lora_embedding_A [r, rows], _B [width, r]

Tensors saved whole (`modules_to_save`, biases, embeddings) replace the base's; an embedding and a
head may have more rows than the base's (see `longer_vocabulary`). Every tensor of the
adapter is used or named in an error. PEFT rounds the product to the base's dtype before it adds;
here the sum is float32 and is rounded once, when a result is written.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    Stored,
    TensorSource,
    stacked_digest,
)
from merge_ops.checkpoints.configs.config import untied
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.files.json_files import JsonFiles
from merge_ops.checkpoints.folders.adapter_names import PEFT_PREFIX
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.header import FLOAT_DTYPES, TensorEntry
from merge_ops.checkpoints.names.name_prefixes import without_wrappers
from merge_ops.checkpoints.names.placeholders import placeholder_fault
from merge_ops.checkpoints.names.tensor_names import is_head, is_vocabulary
from merge_ops.checkpoints.names.tie_names import is_input
from merge_ops.checkpoints.names.tied_copies import equal_bytes
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import CompatibilityError, Fault, did_you_mean
from merge_ops.sources.lora.adapter_config import FILE as CONFIG_FILE
from merge_ops.sources.lora.adapter_config import AdapterConfig, parse_adapter_config, refusals
from merge_ops.sources.lora.adapter_files import WEIGHTS_FILE, check_files, check_kind
from merge_ops.sources.lora.adapter_names import fit_faults, named_for
from merge_ops.sources.lora.adapter_targets import (
    Targets,
    parse_targets,
    target_faults,
    targets_caution,
)
from merge_ops.sources.lora.adapter_ties import settle_ties
from merge_ops.sources.lora.diffusion_adapters import (
    holds_diffusion_adapter,
    open_diffusion_adapter,
)
from merge_ops.sources.lora.longer_vocabulary import (
    longer_base,
    replaces_rows,
    rows_of,
    with_tokens_of,
)
from merge_ops.sources.lora.low_rank import LowRank, ScaledSum
from merge_ops.sources.lora.module_patterns import PatternError

PREFIX = PEFT_PREFIX
_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<role>lora_A\.weight|lora_B\.weight|lora_B\.bias"
    r"|lora_embedding_A|lora_embedding_B)"
)
_ORIGINAL = re.compile(r"\.original_module\.(?=[^.]+$)")
_WRAPPER = re.compile(r"\.(?:base_layer|modules_to_save)(?=\.[^.]+$)")


@dataclass(frozen=True)
class Adapter:
    """An adapter is known by its config and header, before it meets a base.

    `factors` holds the tensors of low-rank changes by module and role. `whole` holds the tensors
    that replace a tensor of the base, by that tensor's name. `stated` holds all that
    adapter_config.json says, `targets` the modules that it means.
    """

    config: AdapterConfig
    stated: Mapping[str, Any]
    checkpoint: Checkpoint
    factors: Mapping[str, Mapping[str, Stored]]
    whole: Mapping[str, Stored]
    targets: Targets | None


def read_adapter(name: str, source: ByteSource, digest: str | None = None) -> Adapter:
    """Read the config and the header of an adapter folder and return the adapter.

    `name` is for messages. Raises CheckpointError where files are missing or damaged,
    CompatibilityError with every reason why it is no LoRA that can be merged.
    """
    reading = read_folder(source, adapter=True)
    files = reading.files
    check_kind(name, reading.verdict)
    check_files(name, source.location, files)
    raw = JsonFiles(source, files).read(CONFIG_FILE)
    checkpoint = Checkpoint(name, source, reading.tensors, {}, digest, files)
    checkpoint = without_wrappers(checkpoint, inside=PREFIX)
    hollow = placeholder_fault(checkpoint)
    faults = [*refusals(raw), *([hollow] if hollow else [])]
    if not hollow and not any(fault.where.endswith("peft_type") for fault in faults):
        config = parse_adapter_config(raw, faults)
        factors, whole = _sorted_out(checkpoint, config, faults)
        faults.extend(_missing_modules(config, whole))
        targets = parse_targets(raw, CONFIG_FILE, faults)
        faults.extend(target_faults(targets, factors, CONFIG_FILE))
        if not faults:
            return Adapter(config, raw, checkpoint, factors, whole, targets)
    raise CompatibilityError(f"adapter {source.location} cannot be merged", faults)


def open_adapter(
    name: str, base: Checkpoint, source: ByteSource, digest: str | None = None
) -> Checkpoint:
    """Return the checkpoint that `base` becomes with an adapter on it, called `name`.

    Its digest is made of both digests where both are known. Raises what `read_adapter` raises, and
    CompatibilityError with every tensor that does not fit the base.
    """
    if holds_diffusion_adapter(source):
        return open_diffusion_adapter(name, base, source, digest)
    adapter = named_for(read_adapter(name, source, digest), base)
    faults = list(fit_faults(adapter, base))
    if faults:
        raise CompatibilityError(f"adapter {source.location} does not fit {base.name}", faults)
    overlays: dict[str, TensorSource] = {}
    for tensor, stored in adapter.whole.items():
        before = find_source(base, tensor)
        if before is None:
            faults.append(_absent(base, tensor))
        elif before.shape == stored.shape or replaces_rows(tensor, before, stored):
            overlays[tensor] = stored
        else:
            what = f"is {list(stored.shape)}, but {list(before.shape)} in {base.name}"
            faults.append(Fault(f"'{stored.name}'", f"{what}; only equal shapes merge"))
    for module, roles in adapter.factors.items():
        overlays.update(_changed(name, adapter.config, base, module, roles, overlays, faults))
    settle_ties(base, adapter.whole, adapter.config.ensure_weight_tying, overlays)
    rows, row_faults = rows_of(base, overlays)
    faults += row_faults
    if faults:
        raise CompatibilityError(f"adapter {source.location} does not fit {base.name}", faults)
    config = base.config
    if base.ties_embeddings and any(map(is_head, overlays)):
        config = untied(config)
    tensors = dict(base.tensors)
    for tensor, overlay in overlays.items():
        tensors[tensor] = _entry(overlay)
    caution = targets_caution(name, adapter.targets, base.tensors, overlays)
    stacked = dataclasses.replace(
        base, name=name, tensors=tensors, config=config,
        digest=stacked_digest([base.digest, digest]),
        overlays={**base.overlays, **overlays}, made_of=(base, adapter.checkpoint),
        cautions=(*base.cautions, *caution),
    )  # fmt: skip
    if rows is None and not any(is_input(tensor) for tensor in adapter.whole):
        return stacked
    return with_tokens_of(adapter.checkpoint, stacked, rows)


def _sorted_out(
    checkpoint: Checkpoint, config: AdapterConfig, faults: list[Fault]
) -> tuple[dict[str, dict[str, Stored]], dict[str, Stored]]:
    """Low-rank factors by module and role, and whole tensors by the name they replace."""
    factors: dict[str, dict[str, Stored]] = {}
    whole: dict[str, Stored] = {}
    for key, entry in checkpoint.tensors.items():
        stored, name = Stored(checkpoint, key, entry), key.removeprefix(PREFIX)
        factor = _FACTOR.fullmatch(name)
        if name == key:
            faults.append(Fault(f"'{key}'", f"does not start with {PREFIX}, as PEFT's names do"))
        elif _is_original(key, checkpoint.tensors):
            continue
        elif "lora_magnitude_vector" in name:
            problem = "belongs to DoRA, which rescales each row by a learned magnitude and cannot"
            faults.append(Fault(f"'{key}'", f"{problem} be merged here"))
        elif entry.dtype not in FLOAT_DTYPES:
            faults.append(Fault(f"'{key}'", f"is {entry.dtype}; a float dtype is expected"))
        elif factor:
            factors.setdefault(factor["module"], {})[factor["role"]] = stored
        elif ".lora_" in name:
            faults.append(Fault(f"'{key}'", "is no lora_A, lora_B, lora_embedding_A or _B of PEFT"))
        else:
            other = whole.setdefault(_WRAPPER.sub("", name), stored)
            if other is not stored and not equal_bytes(checkpoint.source, entry, other.entry):
                problem = f"is the same tensor as '{other.name}', with other values"
                faults.append(Fault(f"'{key}'", problem))
    if not checkpoint.tensors:
        faults.append(Fault(WEIGHTS_FILE, "holds no tensor"))
    for module, roles in factors.items():
        faults.extend(_factor_faults(config, module, roles))
    return factors, whole


def _is_original(key: str, tensors: Collection[str]) -> bool:
    """Whether a tensor is what a module was before, which PEFT keeps beside the one saved whole."""
    saved = {_ORIGINAL.sub(part, key) for part in (".modules_to_save.", ".")} - {key}
    return any(name in tensors for name in saved)


def _factor_faults(
    config: AdapterConfig, module: str, roles: Mapping[str, Stored]
) -> Iterator[Fault]:
    """What is wrong with a module's factors, whatever the base."""
    try:
        rank = config.rank_of(module)
        config.scale_of(module)
    except PatternError as error:
        problem = f"hold a pattern that is, on '{module}', {error}"
        yield Fault(f"{CONFIG_FILE}: rank_pattern, alpha_pattern", problem)
        return
    kind = pair_roles(roles)
    pair = [roles.get(role) for role in kind]
    if None in pair:
        there, absent = kind if pair[0] else reversed(kind)
        yield Fault(f"'{PREFIX}{module}.{there}'", f"has no {absent} beside it")
        return
    down, up = (each for each in pair if each is not None)
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != up.shape[1]:
        what = f"are {list(down.shape)} and {list(up.shape)}; [r, in] and [out, r] are expected"
        yield Fault(f"'{PREFIX}{module}': {kind[0]} and {kind[1]}", what)
    elif down.shape[0] != rank:
        wanted = f"{CONFIG_FILE} says {rank}"
        yield Fault(f"'{PREFIX}{module}'", f"has rank {down.shape[0]}, but {wanted}")


def pair_roles(roles: Mapping[str, Stored]) -> tuple[str, str]:
    """Return the roles of A and B, for an embedding or for any other module."""
    if roles.keys() & {"lora_embedding_A", "lora_embedding_B"}:
        return "lora_embedding_A", "lora_embedding_B"
    return "lora_A.weight", "lora_B.weight"


def _missing_modules(config: AdapterConfig, whole: Mapping[str, Stored]) -> Iterator[Fault]:
    for module in config.modules_to_save:
        if not any(f".{module}." in f".{name}" for name in whole):
            problem = f"names '{module}', but no tensor of it is in {WEIGHTS_FILE}"
            yield Fault(f"{CONFIG_FILE}: modules_to_save", problem)


def _changed(
    name: str,
    config: AdapterConfig,
    base: Checkpoint,
    module: str,
    roles: Mapping[str, Stored],
    replaced: Mapping[str, TensorSource],
    faults: list[Fault],
) -> dict[str, TensorSource]:
    """The sources of one module with its low-rank change; what does not fit goes to `faults`."""
    kind = pair_roles(roles)
    down, up = roles[kind[0]], roles[kind[1]]
    weight = f"{module}.weight"
    target = replaced.get(weight) or find_source(base, weight)
    if target is None:
        faults.append(_absent(base, weight))
        return {}
    transposed = kind[0] == "lora_embedding_A" or config.fan_in_fan_out
    change = (up.shape[0], down.shape[1])
    fits = change[::-1] if transposed else change
    if target.shape != fits or target.dtype not in FLOAT_DTYPES:
        what = f"{target.dtype} {list(target.shape)}"
        problem = f"makes a change of {list(fits)}, but '{weight}' is {what} in {base.name}"
        if is_vocabulary(weight) and target.shape[1:] == fits[1:]:
            problem += f"; {longer_base(fits[0])}"
        faults.append(Fault(f"'{PREFIX}{module}.{kind[0]}'", problem))
        return {}
    scale = config.scale_of(module)
    made: dict[str, TensorSource] = {weight: LowRank(name, target, up, down, scale, transposed)}
    shift = roles.get("lora_B.bias")
    if shift is not None:
        bias = f"{module}.bias"
        before = replaced.get(bias) or find_source(base, bias)
        if before is None or before.shape != shift.shape:
            what = "lacks" if before is None else f"has with shape {list(before.shape)}"
            faults.append(Fault(f"'{shift.name}'", f"changes '{bias}', which {base.name} {what}"))
        else:
            made[bias] = ScaledSum(name, before, shift, scale)
    return made


def _absent(base: Checkpoint, tensor: str) -> Fault:
    hint = did_you_mean(tensor, base.tensors)
    return Fault(f"'{tensor}'", f"is changed by the adapter, but {base.name} lacks it.{hint}")


def _entry(overlay: TensorSource) -> TensorEntry:
    """A header entry that tells dtype and shape; the bytes are the overlay's business."""
    if isinstance(overlay, Stored):
        return overlay.entry
    known: Any = overlay.parts[0].entry
    return dataclasses.replace(known, dtype=overlay.dtype, shape=overlay.shape)
