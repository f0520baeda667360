"""The block stream: read a run of elements of every input, merge it, hand it out in order.

Worker threads read, convert to float32, merge and round one block each; the calling thread writes
the results in file order. At most a few blocks are in flight, so peak memory depends on the
settings and not on the size of the model or the number of experts. A tensor larger than a block
whose method measures it first is read twice, a smaller one once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.block_reader import BlockReader
from merge_ops.device import Device, open_device
from merge_ops.errors import Fault, SettingsError
from merge_ops.measure import LEAF, Block, Measure, TensorJob
from merge_ops.plan import Plan, PlannedTensor

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

MIB = 1 << 20
SMALLEST_BLOCK, LARGEST_BLOCK = LEAF, 16 * MIB
USUAL_BLOCK = 512 * 1024
SAMPLE_RUNS = 128

Emit = Callable[[int, "Sequence[NDArray[np.uint8]]"], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StreamSettings:
    """How to run a merge; none of it changes a bit of the result on one kind of device.

    `memory` bounds the buffers in bytes; `block` fixes the elements of a block (a multiple of
    65,536), otherwise it follows from `memory`, `threads` and the number of inputs.
    """

    threads: int = 0
    device: str = "auto"
    memory: int = 512 * MIB
    block: int | None = None

    def thread_count(self) -> int:
        """The threads asked for, or one for each core this process may use."""
        return self.threads or len(os.sched_getaffinity(0))

    def block_for(self, inputs: int, coefficients: int) -> int:
        """Elements of a block for so many inputs and outputs; a power of two of leaves.

        Raises SettingsError where `memory` does not hold the smallest block.
        """
        if self.block is not None:
            return max(SMALLEST_BLOCK, self.block // LEAF * LEAF)
        each = 8 * (inputs + 1) + 4 * inputs + 24 + 8 * coefficients
        room = self.memory // (each * self.thread_count())
        if room < SMALLEST_BLOCK:
            needed = SMALLEST_BLOCK * each * self.thread_count() / MIB
            problem = (
                f"is {self.memory / MIB:.0f} MiB; {inputs} inputs, {coefficients} coefficient(s)"
                f" and {self.thread_count()} threads need at least {needed:.0f} MiB: allow more"
                " memory or fewer threads"
            )
            raise SettingsError("settings of the merge", [Fault("memory", problem)])
        block = SMALLEST_BLOCK
        while block * 2 <= min(room, USUAL_BLOCK):
            block *= 2
        return block


class _TensorRun:
    """One tensor on its way through the stream: its blocks and what is being measured of it."""

    def __init__(self, plan: Plan, tensor: PlannedTensor, index: int, block: int) -> None:
        self.tensor = tensor
        self.index = index
        self.empty = 0 in tensor.output.shape
        self.ranges = _ranges(tensor, block)
        self.measure: Measure | None = None
        self.round: list[Future[Any]] = []
        self.observed = False  # all of it was read before, and so checked
        if plan.method.measure is not None and tensor.action == "merge":
            names = tuple(each.model for each in tensor.inputs)
            job = TensorJob(tensor.output.name, tensor.output.shape, names, plan.recipe.seed)
            self.measure = plan.method.measure(job, tensor.parameters)

    def block(self, number: int, start: int, inputs: Sequence[Tensor]) -> Block:
        """A block in the shape that the method's span asks for."""
        shape = self.tensor.output.shape
        if self.tensor.span == "row":
            inputs = [each.view(-1, shape[-1] if shape else 1) for each in inputs]
        elif self.tensor.span == "tensor":
            inputs = [each.view(shape) for each in inputs]
        return Block(number, start, inputs)


def _ranges(tensor: PlannedTensor, block: int) -> list[tuple[int, int]]:
    """Runs (start, count) of at most `block` elements; whole rows or all of it where span says.

    Rows come in powers of two, so that their column sums are stages of one sum (`column_sums`).
    """
    shape = tensor.output.shape
    count = max(1, prod(shape))
    if tensor.span == "tensor":
        block = count
    elif tensor.span == "row":
        row = max(1, shape[-1]) if shape else 1
        block = row << max(0, (block // row).bit_length() - 1)
    return [(start, min(block, count - start)) for start in range(0, count, block)]


def _share(tensor: PlannedTensor, start: int, count: int) -> int:
    """Bytes of the tensor's sources that a run stands for; all runs add up to `nbytes`."""
    size = max(1, prod(tensor.output.shape))
    return tensor.nbytes * (start + count) // size - tensor.nbytes * start // size


class BlockStream:
    """Runs one plan. `emit` gets, in file order, a block's bytes for every coefficient."""

    def __init__(self, plan: Plan, settings: StreamSettings) -> None:
        self._plan = plan
        self._threads = settings.thread_count()
        self._device: Device = open_device(settings.device)
        self._block = settings.block_for(plan.widest, len(plan.coefficients))
        self._reader = BlockReader(self._block, self._device)

    def run(self, emit: Emit, progress: Progress | None = None) -> None:
        """Merge everything. Raises NonFiniteError, OSError; `emit` is called on this thread."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="merge")
        done, whole = 0, self._plan.bytes_read
        waiting: deque[tuple[int, int, Future[Any]]] = deque()
        try:
            with self._device.single_threaded():
                for index, nbytes, future in self._tasks(pool):
                    waiting.append((index, nbytes, future))
                    while len(waiting) > self._threads + 2:
                        done += self._emit(waiting.popleft(), emit)
                        if progress:
                            progress(done, whole)
                while waiting:
                    done += self._emit(waiting.popleft(), emit)
                    if progress:
                        progress(done, whole)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _emit(self, task: tuple[int, int, Future[Any]], emit: Emit) -> int:
        index, nbytes, future = task
        emit(index, future.result())
        return nbytes

    def _tasks(self, pool: ThreadPoolExecutor) -> Iterator[tuple[int, int, Future[Any]]]:
        """Submit blocks in file order; the next tensor is measured before this one is merged."""
        runs = (
            _TensorRun(self._plan, tensor, index, self._block)
            for index, tensor in enumerate(self._plan.tensors)
        )
        current = next(runs, None)
        if current is not None:
            self._start_round(pool, current)
        while current is not None:
            self._finish_measuring(pool, current)
            following = next(runs, None)
            if following is not None:
                self._start_round(pool, following)
            if not current.empty:
                for number, (start, count) in enumerate(current.ranges):
                    future = pool.submit(self._merge_block, current, number, start, count)
                    yield current.index, _share(current.tensor, start, count), future
            current = following

    def _start_round(self, pool: ThreadPoolExecutor, run: _TensorRun) -> None:
        """Submit one measuring round over all blocks; single blocks are measured when merged."""
        measure = run.measure
        if measure is None or not measure.wanted or len(run.ranges) == 1:
            return
        if measure.sample:
            measure.look(self._reader.sample(run.tensor, measure.sample, SAMPLE_RUNS))
            measure.sample = 0
        run.observed = True
        run.round = [
            pool.submit(self._observe_block, run, number, start, count)
            for number, (start, count) in enumerate(run.ranges)
        ]

    def _finish_measuring(self, pool: ThreadPoolExecutor, run: _TensorRun) -> None:
        while run.round and run.measure is not None:
            observations = [future.result() for future in run.round]
            run.round = []
            run.measure.absorb(observations)
            self._start_round(pool, run)

    def _observe_block(self, run: _TensorRun, number: int, start: int, count: int) -> Any:
        assert run.measure is not None
        with self._device.stream():
            _, inputs = self._reader.read(run.tensor, start, count)
            return run.measure.observe(run.block(number, start, inputs))

    def _merge_block(
        self, run: _TensorRun, number: int, start: int, count: int
    ) -> list[NDArray[np.uint8]]:
        tensor = run.tensor
        if tensor.action == "copy":
            data = self._reader.raw(tensor, start, count)
            return [data] * len(self._plan.coefficients)
        with self._device.stream():
            return self._merged(run, number, start, count)

    def _merged(
        self, run: _TensorRun, number: int, start: int, count: int
    ) -> list[NDArray[np.uint8]]:
        tensor, measure = run.tensor, run.measure
        base, inputs = self._reader.read(tensor, start, count, checked=not run.observed)
        block = run.block(number, start, inputs)
        if measure is not None and measure.wanted:
            measure_whole(measure, block)
        results: list[NDArray[np.uint8]] = []
        for position, parameters in enumerate(tensor.parameters):
            known = measure.at(block, position) if measure is not None else None
            merged = self._plan.method.merge(block.inputs, known, parameters).view(-1)
            if base is not None:
                merged = merged.add_(base)
            results.append(self._reader.encode(merged, tensor.output.dtype))
        return results


def measure_whole(measure: Measure, block: Block) -> None:
    """Measure a tensor that is one block: as many rounds as wanted, on the data at hand."""
    if measure.sample:
        step = max(1, block.count // measure.sample)
        measure.look([each.reshape(-1)[::step].contiguous() for each in block.inputs])
    while measure.wanted:
        measure.absorb([measure.observe(block)])
