"""Task vectors read block by block, outside a merge: for statistics and for masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from merge_ops.block_reader import torch_dtype
from merge_ops.checkpoint import Checkpoint
from merge_ops.compatibility import excluded, find_tensor
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.header import FLOAT_DTYPES, ITEM_SIZES, TensorEntry
from merge_ops.layout import natural_key

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 18


def float_tensors(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    """The float tensors of `base` in order. Raises CompatibilityError where an expert lacks one."""
    skipped: Mapping[str, str] = excluded(base)
    names = [
        name
        for name, entry in base.tensors.items()
        if name not in skipped and entry.dtype in FLOAT_DTYPES and entry.count
    ]
    for expert in experts:
        for name in names:
            entry = find_tensor(expert, name)
            if entry is None or entry.shape != base.tensors[name].shape:
                what = "lacks" if entry is None else "has another shape for"
                raise CompatibilityError(
                    f"models {base.name} and {expert.name}",
                    [Fault(expert.name, f"{what} '{name}', so there is no task vector")],
                )
    return sorted(names, key=natural_key)


def delta_blocks(
    base: Checkpoint, experts: Sequence[Checkpoint], name: str
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The base and every expert − base, block by block, as flat float32 tensors."""
    entry = base.tensors[name]
    for start in range(0, entry.count, BLOCK):
        count = min(BLOCK, entry.count - start)
        origin = stored_values(base, entry, start, count)
        deltas: list[Tensor] = []
        for expert in experts:
            other = cast(TensorEntry, find_tensor(expert, name))
            deltas.append(stored_values(expert, other, start, count).sub_(origin))
        yield origin, deltas


def stored_values(checkpoint: Checkpoint, entry: TensorEntry, start: int, count: int) -> Tensor:
    """Elements [start, start + count) of a float tensor, as a float32 tensor of their own."""
    import torch

    size = ITEM_SIZES[entry.dtype]
    raw = bytearray(count * size)
    checkpoint.source.read_into(entry.file, entry.offset + start * size, memoryview(raw))
    stored = torch.frombuffer(raw, dtype=torch_dtype(entry.dtype))
    return stored.to(torch.float32, copy=True)
