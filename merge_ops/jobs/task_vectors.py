"""Task vectors read block by block, outside a merge: for statistics and for masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.tensor_names import is_vocabulary
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.plans.agreement.vocabulary_agreement import differing_vocabulary
from merge_ops.stream.block_reader import read_values

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 18


def float_tensors(base: Checkpoint, experts: Sequence[Checkpoint]) -> list[str]:
    """Return the names of the float tensors of `base`, in natural order, without buffers.

    Tensors with a row for each token are left out where vocabularies differ. Raises
    CompatibilityError where an expert lacks a tensor or has another shape for it.
    """
    skipped: Mapping[str, str] = excluded(base)
    names = [
        name
        for name, entry in base.tensors.items()
        if name not in skipped
        and entry.dtype in FLOAT_DTYPES
        and entry.count
        and not is_buffer(name, entry)
    ]
    # Rows of different tokens have no difference; a merge brings them to one vocabulary first.
    if any(differing_vocabulary(base, expert) for expert in experts):
        names = [name for name in names if not is_vocabulary(name)]
    for expert in experts:
        for name in names:
            entry = find_source(expert, name)
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
    """Yield the base and every expert − base, block by block, as flat float32 tensors."""
    whole = base.tensors[name].count
    for start in range(0, whole, BLOCK):
        count = min(BLOCK, whole - start)
        origin = values_of(base, name, start, count)
        deltas = [values_of(expert, name, start, count).sub_(origin) for expert in experts]
        yield origin, deltas


def values_of(checkpoint: Checkpoint, name: str, start: int, count: int) -> Tensor:
    """Return elements [start, start + count) of a float tensor, flat, as new float32 values."""
    source = find_source(checkpoint, name)
    assert source is not None  # float_tensors has been through all of them
    return read_values(source, start, count)
