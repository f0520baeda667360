"""Small tensors that are merged as if they were one, where a method does not see the difference.

A method that sees elements and measures nothing gives the same bits for every way to cut a tensor.
So it does for several tensors one behind the other, where dtypes and parameters are the same. What
is paid for each block (reads, calls, checks) is then paid once for hundreds of tiny tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import is_
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import Stored, TensorSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.methods.registry import MergeMethod
from merge_ops.plans.steps import Merge
from merge_ops.stream.tensor_run import TensorRun

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_BETWEEN = 2
"""A part of a file is read whole where it has at most so many times the bytes that are wanted."""


@dataclass(frozen=True, slots=True)
class StoredTogether(Stored):
    """Stored tensors of one dtype, one behind the other; `entry` is of all of them."""

    members: tuple[Stored, ...]

    def runs(self) -> Iterator[Stored]:
        """It gives the members in order, neighbours in a file as one."""
        first = last = self.members[0]
        nbytes = 0
        for each in self.members:
            if nbytes and not _follows(last, each):
                yield _run(first, nbytes)
                first, nbytes = each, 0
            last = each
            nbytes += each.entry.nbytes
        yield _run(first, nbytes)

    def span(self) -> Stored | None:
        """The part of one file that holds all members and not much else, or None."""
        entries = [each.entry for each in self.members]
        one = self.members[0]
        start = min(each.offset for each in entries)
        nbytes = max(each.offset + each.nbytes for each in entries) - start
        if nbytes > MOST_BETWEEN * self.entry.nbytes or any(
            each.checkpoint is not one.checkpoint or each.entry.file != one.entry.file
            for each in self.members
        ):
            return None
        entry = TensorEntry("U8", (nbytes,), one.entry.file, start, nbytes)
        return Stored(one.checkpoint, one.name, entry)


def _follows(one: Stored, other: Stored) -> bool:
    """Whether the bytes of a tensor begin where those of another end."""
    return (
        one.checkpoint is other.checkpoint
        and one.entry.file == other.entry.file
        and one.entry.offset + one.entry.nbytes == other.entry.offset
    )


def _run(first: Stored, nbytes: int) -> Stored:
    entry = first.entry
    return Stored(
        first.checkpoint, first.name, TensorEntry("U8", (nbytes,), entry.file, entry.offset, nbytes)
    )


Block = tuple[TensorRun, int, int, int, int]
"""A tensor's run, what merging the block holds, its number, start and count of elements."""


def alike(method: MergeMethod, blocks: Sequence[Block], most: int) -> Iterator[list[Block]]:
    """It groups blocks in order: whole small tensors that can be merged as one, others alone.

    A group has at most `most` elements.
    """
    group: list[Block] = []
    count = 0
    for block in blocks:
        run = block[0]
        if group and not (
            count + block[-1] <= most
            and _goes_together(method, run)
            and _goes_together(method, group[0][0])
            and _are_alike(run.merge, group[0][0].merge)
        ):
            yield group
            group, count = [], 0
        group.append(block)
        count += block[-1]
    if group:
        yield group


def parts_of(
    made: Sequence[NDArray[np.uint8]], counts: Sequence[int], size: int
) -> list[list[NDArray[np.uint8]]]:
    """For each of tensors of so many elements of `size` bytes, its part of each result."""
    ends = [size * end for end in accumulate(counts)]
    return [[each[a:b] for each in made] for a, b in pairwise([0, *ends])]


def _goes_together(method: MergeMethod, run: TensorRun) -> bool:
    """Whether a tensor is one block that may be merged together with others like it."""
    step = run.tensor
    return (
        isinstance(step, Merge)
        and len(run.ranges) == 1
        and step.span == "element"
        and method.measure is None
        and not method.random
        and all(type(each) is Stored for each in step.sources)
    )


def _are_alike(one: Merge, other: Merge) -> bool:
    """Whether two tensors that go together differ in nothing but their values and names."""
    return (
        one.output.dtype == other.output.dtype
        and len(one.inputs) == len(other.inputs)
        and (one.base is None) == (other.base is None)
        and all(map(is_, one.parameters, other.parameters))
        and all(a.dtype == b.dtype for a, b in zip(one.sources, other.sources, strict=True))
    )


def joined(steps: Sequence[Merge], counts: Sequence[int]) -> Merge:
    """One step that merges steps which are alike, of so many elements each."""
    first, count = steps[0], sum(counts)
    inputs = [_stored(each, count) for each in zip(*(step.inputs for step in steps), strict=True)]
    bases = [step.base for step in steps if step.base is not None]
    return Merge(
        OutputTensor(first.output.name, first.output.dtype, (count,)),
        _stored(bases, count) if bases else None,
        tuple(inputs),
        first.parameters,
        first.span,
    )


def _stored(sources: Sequence[TensorSource], count: int) -> StoredTogether:
    members = tuple(each for each in sources if isinstance(each, Stored))
    assert len(members) == len(sources)  # as goes_together saw
    first = members[0]
    nbytes = sum(each.entry.nbytes for each in members)
    entry = TensorEntry(first.dtype, (count,), first.entry.file, first.entry.offset, nbytes)
    return StoredTogether(first.checkpoint, first.name, entry, members)
