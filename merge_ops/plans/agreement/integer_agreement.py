"""Do models agree in their whole numbers? What has no average must be equal to be copied.

This is the one place where a plan reads tensors. They are few and small: indices and tables. Large
ones are codes of quantized weights, which differ in their first block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource
from merge_ops.checkpoints.names.buffers import is_buffer, is_counter
from merge_ops.checkpoints.names.tensor_names import shape_fault
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import CheckpointError, Fault
from merge_ops.plans.result_files import ResultFiles

# So much of each of two tensors is held at once; the first block that differs ends the comparison.
BLOCK_BYTES = 1 << 20


def integer_faults(
    leader: Checkpoint, name: str, others: Sequence[Checkpoint], names: Sequence[str]
) -> Iterator[Fault]:
    """Yield what keeps a tensor of whole numbers from being copied for several models.

    `name` is the leader's, `names` are those of the others. Such a tensor is bool, complex or
    integer of any width. Buffers that loading recomputes need not agree, nor do counters of steps.
    Raises CheckpointError where the bytes cannot be read.
    """
    ours = find_source(leader, name)
    if ours is None or is_buffer(name, ours) or is_counter(name):
        return
    for other, their_name in zip(others, names, strict=True):
        theirs = find_source(other, their_name)
        if other is leader:
            continue
        if theirs is None:
            yield Fault(other.name, f"lacks '{their_name}', which {leader.name} has")
        elif theirs.shape != ours.shape:
            yield shape_fault(leader, other, their_name, ours.shape, theirs.shape)
        elif theirs.dtype != ours.dtype:
            yield Fault(
                other.name, f"holds '{their_name}' as {theirs.dtype}, {leader.name} as {ours.dtype}"
            )
        elif _differ(ours, theirs):
            yield Fault(
                other.name,
                f"has other numbers in '{their_name}' ({ours.dtype}) than {leader.name}: integer"
                " tensors differ between the models and cannot be averaged. If they are codes of"
                " quantized weights, merge the unquantized checkpoints",
            )


def _differ(ours: TensorSource, theirs: TensorSource) -> bool:
    pair = [_origin(each) for each in (ours, theirs)]
    first, second = pair
    if first is None or second is None:
        return False  # not stored anywhere: no source computes whole numbers
    if (first.checkpoint.source, first.entry) == (second.checkpoint.source, second.entry):
        return False
    for start in range(0, first.nbytes, BLOCK_BYTES):
        count = min(BLOCK_BYTES, first.nbytes - start)
        if _bytes(first, start, count) != _bytes(second, start, count):
            return True
    return False


def _origin(source: TensorSource) -> Stored | None:
    """Where the bytes lie: a result that is not merged yet copies such a tensor from a model."""
    while isinstance(source, Stored):
        files = source.checkpoint.source
        copied = files.copied_from(source.name) if isinstance(files, ResultFiles) else None
        if copied is None:
            return source
        source = copied
    return None


def _bytes(stored: Stored, start: int, count: int) -> bytearray:
    buffer = bytearray(count)
    entry, source = stored.entry, stored.checkpoint.source
    try:
        source.read_into(entry.file, entry.offset + start, memoryview(buffer))
    except OSError as error:
        raise CheckpointError(
            f"model '{stored.model}': {source.location}/{entry.file} cannot be read at byte"
            f" {entry.offset + start} ({error})"
        ) from error
    return buffer
