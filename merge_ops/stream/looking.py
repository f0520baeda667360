"""Looking at tensors block by block, outside a merge: for differences, and for whose model it is.

The reader, the arithmetic, the threads and the bound of memory are those of a merge; nothing is
written. What is seen comes in order, so that sums over it do not depend on the threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from merge_ops.checkpoints.checkpoint import Stored, TensorSource
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.kernels.arithmetic import Arithmetic
from merge_ops.plans.steps import Merge
from merge_ops.progress import Progress
from merge_ops.stream.block_reader import BlockReader
from merge_ops.stream.device import open_device
from merge_ops.stream.ranges import ranges
from merge_ops.stream.settings import StreamSettings

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Values

Seen = TypeVar("Seen")

TOGETHER = 1 << 16  # elements of small tensors that one task looks at


@dataclass(frozen=True)
class Look:
    """A look is a block of a tensor, [start, start + n): float32 values, each of shape (n,).

    `base` is there where the tensor has one, and then the inputs are differences from it. The
    values live until the next look of the same thread.
    """

    index: int
    start: int
    base: Values | None
    inputs: Sequence[Values]
    arithmetic: Arithmetic


def tensor_to_see(name: str, inputs: Sequence[TensorSource], base: TensorSource | None) -> Merge:
    """Return a tensor to look at: its inputs, as they are or as differences from a base."""
    first = inputs[0]
    output = OutputTensor(name, first.dtype, first.shape)
    return Merge(output, base, tuple(inputs), ())


def look_through(
    tensors: Sequence[Merge],
    observe: Callable[[Look], Seen],
    settings: StreamSettings | None = None,
    progress: Progress | None = None,
) -> Iterator[list[Seen]]:
    """Yield for each tensor, in order, what `observe` makes of each of its blocks, in order.

    It is called by several threads at once. Values that are not finite are handed on as they are.
    Raises SettingsError where the bound of memory holds no block, CheckpointError where a file
    cannot be read.
    """
    settings = settings or StreamSettings(device="cpu")
    widest = max((len(each.sources) for each in tensors), default=1)
    block = settings.block_for(widest, 0)
    stored = all(isinstance(part, Stored) for each in tensors for part in each.sources)
    device = open_device("cpu", with_torch=not stored)
    reader = BlockReader(block, device.arithmetic)
    whole, done = sum(each.nbytes for each in tensors), 0

    def see(part: tuple[int, int, int]) -> Seen:
        index, start, count = part
        with np.errstate(all="ignore"):
            base, inputs = reader.read(tensors[index], start, count, checked=False)
            return observe(Look(index, start, base, inputs, device.arithmetic))

    def work(parts: Sequence[tuple[int, int, int]]) -> list[Seen]:
        return [see(part) for part in parts]

    seen: list[Seen] = []
    current = 0
    pool = ThreadPoolExecutor(settings.thread_count(), "look", device.use_one_core)
    try:
        with device.single_threaded():
            for parts, results in _in_order(pool, _tasks(tensors, block), work, settings):
                for (index, _, _), result in zip(parts, results, strict=True):
                    while current < index:
                        yield seen
                        done += tensors[current].nbytes
                        seen, current = [], current + 1
                        if progress:
                            progress(done, whole)
                    seen.append(result)
            while current < len(tensors):
                yield seen
                seen, current = [], current + 1
            if progress and tensors:
                progress(whole, whole)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


Part = tuple[int, int, int]
"""Index of a tensor, first element and number of elements."""


def _tasks(tensors: Sequence[Merge], block: int) -> Iterator[list[Part]]:
    """Blocks in order; those of small tensors together, as a task costs more than they do."""
    waiting: list[Part] = []
    held = 0
    for index, tensor in enumerate(tensors):
        if 0 in tensor.output.shape:
            continue
        for start, count in ranges(tensor, block):
            if waiting and held + count > TOGETHER:
                yield waiting
                waiting, held = [], 0
            waiting.append((index, start, count))
            held += count
    if waiting:
        yield waiting


def _in_order(
    pool: ThreadPoolExecutor,
    tasks: Iterator[list[Part]],
    work: Callable[[Sequence[Part]], list[Seen]],
    settings: StreamSettings,
) -> Iterator[tuple[list[Part], list[Seen]]]:
    """Tasks as they were submitted, a few ahead of the one handed out."""
    waiting: deque[tuple[list[Part], Future[list[Seen]]]] = deque()
    for parts in tasks:
        waiting.append((parts, pool.submit(work, parts)))
        while len(waiting) > settings.thread_count() + 2:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def elements(tensor: Merge) -> int:
    """Return the number of elements of a tensor."""
    return prod(tensor.output.shape)
