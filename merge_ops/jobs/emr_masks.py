"""What EMR-Merging keeps of every expert beside the one merged checkpoint: a mask and a scale.

    emr_masks.safetensors
      <tensor>   U8: for each leaf of 65,536 entries the bits of the first expert, of the second, …;
                 a bit is 1 where the expert has the sign of the merged task vector; lowest bit
                 first, each run filled up to whole 64-bit words
      rescale    F64: one scale for each expert
      metadata   format, and `experts`: their names in order, as JSON

An expert costs one bit for each entry. Huang et al. 2024, https://arxiv.org/abs/2405.17461.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.checkpoints.checkpoint import INDEX_SUFFIX, Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSink, ByteSource, read_file
from merge_ops.checkpoints.files.strict_json import load_json
from merge_ops.checkpoints.header import TensorEntry, read_header
from merge_ops.checkpoints.layout import OutputTensor, header_of, index_file, lay_out, natural_key
from merge_ops.checkpoints.names.ties import own_heads, tied_tensors
from merge_ops.errors import (
    CheckpointError,
    CompatibilityError,
    Fault,
    MissingModelError,
    NonFiniteError,
    did_you_mean,
)
from merge_ops.jobs.task_vectors import BLOCK, delta_blocks, float_tensors, values_of
from merge_ops.measures.measure import LEAF
from merge_ops.methods.emr import unified
from merge_ops.progress import Progress
from merge_ops.stream.device import open_device
from merge_ops.stream.rounding import torch_dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.plans.plan import Plan

MASKS_FILE = "emr_masks.safetensors"
RESCALE = "rescale"
FORMAT = "ronghe-emr-masks-1"


@dataclass(frozen=True)
class Masks:
    """Masks are an opened mask file: the experts' names and scales, and the place of the bits."""

    source: ByteSource
    experts: tuple[str, ...]
    rescale: tuple[float, ...]
    tensors: dict[str, TensorEntry]

    def bits(self, name: str, expert: int, start: int, count: int) -> NDArray[np.bool_]:
        """Return one expert's mask of the entries [start, start + count), flat.

        `start` begins a leaf.
        """
        entry, runs = self.tensors[name], len(self.experts)
        parts: list[NDArray[np.bool_]] = []
        for at in range(start, start + count, LEAF):
            here = min(LEAF, start + count - at)
            size = _run_bytes(here)
            offset = at // LEAF * runs * _run_bytes(LEAF) + expert * size
            raw = read_file(self.source, entry.file, entry.offset + offset, size)
            packed = np.frombuffer(raw, dtype=np.uint8)
            parts.append(np.unpackbits(packed, count=here, bitorder="little").astype(np.bool_))
        return np.concatenate(parts)


def masked_models(plan: Plan) -> tuple[Checkpoint, tuple[Checkpoint, ...]] | None:
    """Return the base and the experts that a plan by `emr` needs masks of.

    It is None for plans of other methods, and for slices and modules, which put layers of one model
    beside other layers of another.
    """
    if plan.recipe.merge_method != "emr" or not plan.recipe.merges_whole_models:
        return None
    (group,) = plan.arrangement.groups
    assert group.base is not None  # emr works on task vectors
    return group.base, group.inputs


def write_masks(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    sink: ByteSink,
    progress: Progress | None = None,
) -> tuple[float, ...]:
    """Write the mask file of `experts` into `sink`, and return the experts' scales.

    maskᵢ = 1[δᵢ · τ > 0] with τ the task vector that `emr` merges, and scaleᵢ = Σ|δᵢ| / Σ|maskᵢ τ|
    over the whole model; 1 for an expert without any change. One pass in bounded memory; sums in
    float64. Raises CompatibilityError and NonFiniteError.
    """
    arithmetic = open_device("cpu").arithmetic
    _check_heads(base, experts)
    names = float_tensors(base, experts)
    whole, done = sum(base.tensors[name].count for name in names), 0
    before, after = [0.0] * len(experts), [0.0] * len(experts)
    header = _header(base, names, [each.name for each in experts])
    size = len(header) + sum(_mask_bytes(base.tensors[n].count, len(experts)) for n in names)
    with sink.open(MASKS_FILE, size + 8 * len(experts)) as file:
        file.write(header)
        for name in names:
            for _, deltas in delta_blocks(base, experts, name):
                merged = unified(deltas)
                masks = [(delta.sign() * merged) > 0 for delta in deltas]
                for expert, (delta, mask) in enumerate(zip(deltas, masks, strict=True)):
                    kept = merged * mask
                    before[expert] += sum(arithmetic.leaf_sums(delta, None, LEAF).tolist())
                    after[expert] += sum(arithmetic.leaf_sums(kept, None, LEAF).tolist())
                file.write(_packed(masks))
            done += base.tensors[name].count
            if progress:
                progress(done, whole)
        scales = _scales(experts, before, after)
        file.write(np.array(scales, dtype="<f8").tobytes())
    return scales


def _check_heads(base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
    faults = [
        Fault(
            expert.name, f"has a '{name}' of its own, which is tied to another tensor in the base"
        )
        for expert in experts
        for name in sorted(own_heads([expert]))
        if name not in base.tensors or name in tied_tensors(base)
    ]
    if faults:
        problem = f"masks over {base.name} cannot be made: untie its head first, and save it"
        raise CompatibilityError(problem, faults)


def _header(base: Checkpoint, names: Sequence[str], experts: Sequence[str]) -> bytes:
    tensors = [
        OutputTensor(name, "U8", (_mask_bytes(base.tensors[name].count, len(experts)),))
        for name in names
    ]
    tensors.append(OutputTensor(RESCALE, "F64", (len(experts),)))
    listed = json.dumps(list(experts), ensure_ascii=False)
    return header_of(tensors, {"format": FORMAT, "experts": listed})


def _scales(
    experts: Sequence[Checkpoint], before: Sequence[float], after: Sequence[float]
) -> tuple[float, ...]:
    for expert, value in zip(experts, before, strict=True):
        if not math.isfinite(value):
            raise NonFiniteError(
                f"model '{expert.name}' or its base holds NaN or infinity, so it has no mask; a"
                " merge of these models names the tensor"
            )
    return tuple(b / a if a > 0 else 1.0 for b, a in zip(before, after, strict=True))


def _packed(masks: Sequence[Tensor]) -> bytes:
    """The bits of one block, leaf by leaf and expert by expert."""
    parts: list[bytes] = []
    for start in range(0, masks[0].numel(), LEAF):
        for mask in masks:
            leaf = cast("NDArray[np.bool_]", mask[start : start + LEAF].numpy())
            bits = np.packbits(leaf, bitorder="little").tobytes()
            parts.append(bits.ljust(_run_bytes(len(leaf)), b"\0"))
    return b"".join(parts)


def _run_bytes(entries: int) -> int:
    return -(-entries // 64) * 8


def _mask_bytes(count: int, experts: int) -> int:
    full, rest = divmod(count, LEAF)
    return experts * (full * _run_bytes(LEAF) + _run_bytes(rest))


def open_masks(source: ByteSource) -> Masks:
    """Read the header and the scales of a mask file and return the masks.

    Raises MissingModelError where there is no file, CheckpointError where it is damaged or no mask
    file.
    """
    where, size = f"{source.location}/{MASKS_FILE}", source.sizes().get(MASKS_FILE)
    if size is None:
        raise MissingModelError(f"{where} is not there; write_masks writes it from the experts")

    def read(offset: int, length: int) -> bytes:
        return read_file(source, MASKS_FILE, offset, length)

    tensors = read_header(where, MASKS_FILE, size, read)
    experts = _experts(read(8, int.from_bytes(read(0, 8), "little")))
    rescale = tensors.pop(RESCALE, None)
    if experts is None or rescale is None or rescale.dtype != "F64":
        raise CheckpointError(
            f"{where} holds no EMR masks (its format is not {FORMAT}); write_masks writes it"
        )
    if rescale.count != len(experts):
        raise CheckpointError(
            f"{where}: has {rescale.count} scales for {len(experts)} experts; write it again from"
            " the experts"
        )
    raw = read(rescale.offset, rescale.nbytes)
    return Masks(source, experts, tuple(np.frombuffer(raw, dtype="<f8").tolist()), tensors)


def _experts(header: bytes) -> tuple[str, ...] | None:
    """The experts' names from the metadata of a header; None where it is no mask file's."""
    metadata = cast(dict[str, Any], json.loads(header)).get("__metadata__")
    known = cast(dict[str, Any], metadata) if isinstance(metadata, dict) else {}
    try:
        names: Any = load_json(known["experts"].encode())
    except (ValueError, KeyError, AttributeError, RecursionError):
        return None
    if known.get("format") != FORMAT or not isinstance(names, list):
        return None
    experts = cast(list[Any], names)
    return tuple(experts) if all(isinstance(name, str) for name in experts) else None


def restore(
    base: Checkpoint,
    merged: Checkpoint,
    masks: Masks,
    expert: str,
    sink: ByteSink,
    progress: Progress | None = None,
) -> None:
    """Write the checkpoint θ₀ + scaleᵢ · maskᵢ · τ of one expert; τ = merged − base.

    `merged` is what `emr` made with λ = 1 of the same base and experts; dtypes, config and
    tokenizer are its, and τ is as exact as its dtype. Raises MissingModelError for an expert
    without a mask, CheckpointError for checkpoints that are not those of the masks.
    """
    if expert not in masks.experts:
        hint = did_you_mean(expert, masks.experts)
        known = ", ".join(masks.experts)
        raise MissingModelError(
            f"{masks.source.location}/{MASKS_FILE} has no mask of '{expert}'.{hint} Known: {known}"
        )
    _check_match(base, merged, masks)
    which = masks.experts.index(expert)
    ordered = sorted(merged.tensors, key=natural_key)
    shards = lay_out(
        [OutputTensor(n, merged.tensors[n].dtype, merged.tensors[n].shape) for n in ordered]
    )
    done, whole = 0, merged.nbytes
    for shard in shards:
        with sink.open(shard.file, shard.size) as file:
            file.write(shard.header)
            for tensor in shard.tensors:
                for part in _restored(base, merged, masks, which, tensor.name):
                    file.write(part)
                    done += len(part)
                    if progress:
                        progress(done, whole)
    for name, data in {**index_file(shards), **_files_beside(merged)}.items():
        with sink.open(name, len(data)) as file:
            file.write(data)


def _check_match(base: Checkpoint, merged: Checkpoint, masks: Masks) -> None:
    for name, entry in masks.tensors.items():
        for checkpoint in (base, merged):
            own = checkpoint.tensors.get(name)
            if own is None or _mask_bytes(own.count, len(masks.experts)) != entry.nbytes:
                what = "lacks" if own is None else "has another size for"
                raise CheckpointError(
                    f"model '{checkpoint.name}' {what} tensor '{name}' of"
                    f" {masks.source.location}/{MASKS_FILE}; give the base and the emr merge that"
                    " the masks were made for"
                )


def _restored(
    base: Checkpoint, merged: Checkpoint, masks: Masks, expert: int, name: str
) -> Iterator[bytes]:
    """The bytes of one tensor, block by block; what has no mask is as in `merged`."""
    import torch

    entry = merged.tensors[name]
    size = entry.nbytes // max(1, entry.count)
    for start in range(0, entry.count, BLOCK):
        count = min(BLOCK, entry.count - start)
        if name not in masks.tensors:
            yield read_file(merged.source, entry.file, entry.offset + start * size, count * size)
            continue
        origin = values_of(base, name, start, count)
        shared = values_of(merged, name, start, count).sub_(origin)
        mask = torch.as_tensor(masks.bits(name, expert, start, count))
        values = origin.add_(shared.mul_(mask).mul_(masks.rescale[expert]))
        rounded = values.to(torch_dtype(entry.dtype)).view(torch.uint8)
        yield cast("NDArray[np.uint8]", rounded.numpy()).tobytes()


def _files_beside(merged: Checkpoint) -> dict[str, bytes]:
    """Config and tokenizer: everything at the top but weights, their index, and the model card."""
    return {
        name: read_file(merged.source, name, 0, size)
        for name, size in merged.files.items()
        if "/" not in name and not name.endswith((".safetensors", INDEX_SUFFIX, "README.md"))
    }
