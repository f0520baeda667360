"""The block stream: read a run of elements of every input, merge it, hand it out in order.

Worker threads read, convert to float32, merge and round one block each; the calling thread writes
the results in file order. At most a few blocks are in flight, so peak memory depends on the
settings and not on the size of the model or the number of experts; only a method that must see
tensors whole takes room for those. A tensor larger than a block whose method measures it first is
read twice, a smaller one once; what is measured over the whole model is read twice in any case.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.errors import NonFiniteError
from merge_ops.measures.measure import (
    SAMPLE_RUNS,
    Measure,
    measure_whole,
    sample_size,
)
from merge_ops.plans.plan import Plan
from merge_ops.plans.steps import Merge, Reuse, Step
from merge_ops.progress import Meter, Progress
from merge_ops.stream.block_reader import BlockReader
from merge_ops.stream.device import Device, needs_torch, open_device
from merge_ops.stream.overflow import NotFinite, overflow_error
from merge_ops.stream.room import Room, bytes_to_hold, check_room, machine_memory
from merge_ops.stream.rounding import encoded, is_sum_of_stored, worked_out
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.tensor_run import TensorRun
from merge_ops.stream.together import Block, alike, joined, parts_of
from merge_ops.stream.whole_model import WholeModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Values

SAMPLE_RUN = 4096  # elements of a run of a model's sample, at least
MOST_TOGETHER = 1 << 15  # elements of small tensors that one task merges: it costs as much as they
MOST_SMALL = 512  # small tensors of one task: each takes a kilobyte until it is written

Emit = Callable[[int, "Sequence[NDArray[np.uint8]]"], None]


@dataclass(frozen=True)
class _Task:
    """Work under way: blocks in order, and bytes it keeps until written where they are whole.

    `parts` are each block's tensor and the bytes it reads; the future gives a result for each.
    """

    parts: Sequence[tuple[int, int]]
    kept: int
    future: Future[Any]


def _share(tensor: Step, start: int, count: int) -> int:
    """Bytes of the tensor's sources that a run stands for; all runs add up to `nbytes`."""
    size = max(1, prod(tensor.output.shape))
    if count == size:
        return tensor.nbytes
    return tensor.nbytes * (start + count) // size - tensor.nbytes * start // size


def check_settings(plan: Plan, settings: StreamSettings) -> None:
    """Raise SettingsError where these settings, or this machine, have no room for the plan."""
    check_room(plan, machine_memory())
    settings.block_for(plan.widest, len(plan.coefficients))


class BlockStream:
    """Runs one plan. `emit` gets, in file order, a block's bytes for every coefficient.

    The device is that of the settings unless another is given.
    """

    def __init__(self, plan: Plan, settings: StreamSettings, device: Device | None = None) -> None:
        check_room(plan, machine_memory())
        self._plan = plan
        self._threads = settings.thread_count()
        self._device = device or open_device(settings.device, with_torch=needs_torch(plan))
        self._arithmetic = self._device.arithmetic
        self._block = settings.block_for(plan.widest, len(plan.coefficients))
        self._reader = BlockReader(self._block, self._arithmetic)
        self._memory = settings.memory
        self._room = Room(settings.memory)

    def run(self, emit: Emit, progress: Progress | None = None) -> None:
        """Merge everything. Raises NonFiniteError, OSError; `emit` is called on this thread."""
        pool = ThreadPoolExecutor(self._threads, "merge", self._device.use_one_core)
        meter = Meter(self._plan.bytes_read, progress)
        try:
            with self._device.single_threaded():
                model = self._measured_model(pool, meter)
                meter.start(1)
                for task in self._in_order(self._tasks(pool, model)):
                    for (tensor, _), made in zip(task.parts, task.future.result(), strict=True):
                        emit(tensor, made)
                    meter.add(sum(nbytes for _, nbytes in task.parts))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _in_order(self, tasks: Iterator[_Task]) -> Iterator[_Task]:
        """Tasks as they were submitted, a few ahead of the one handed out."""
        waiting: deque[_Task] = deque()
        for task in tasks:
            waiting.append(task)
            while len(waiting) > self._threads + 2 or (
                len(waiting) > 1 and sum(each.kept for each in waiting) > self._memory
            ):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()

    def _measured_model(self, pool: ThreadPoolExecutor, meter: Meter) -> WholeModel:
        """Rounds over the whole model, for the coefficients that ask for it."""
        model = WholeModel(self._plan, self._block, self._arithmetic)
        measure = model.measure
        while measure is not None and measure.wanted:
            if measure.sample:
                measure.look(self._sample_of_model(model, measure))
                measure.sample = 0
            meter.start(2)
            measure.absorb(self._observations(pool, model, meter))
        return model

    def _sample_of_model(self, model: WholeModel, measure: Measure) -> Sequence[Values]:
        """About as many elements as the measure wants, from every tensor its share."""
        parts: list[Sequence[Values]] = []
        for index in model.tensors():
            tensor = model.step(index).with_inputs(measure.group)
            wanted = sample_size(measure, len(tensor.inputs))
            share = max(1, wanted * prod(tensor.output.shape) // model.count)
            runs = max(1, min(SAMPLE_RUNS, share // SAMPLE_RUN))
            parts.append(self._reader.sample(tensor, share, runs))
        return [self._arithmetic.joined(runs) for runs in zip(*parts, strict=True)]

    def _observations(
        self, pool: ThreadPoolExecutor, model: WholeModel, meter: Meter
    ) -> Iterator[Any]:
        """One round over all blocks of the model, in order and a few ahead."""

        def tasks() -> Iterator[_Task]:
            for index in model.tensors():
                tensor = model.step(index)
                run = self._run_of(tensor, index, model)
                for number, (start, count) in enumerate(run.ranges):
                    future = pool.submit(self._observe_model, run, model, number, start, count)
                    yield _Task([(index, _share(tensor, start, count))], 0, future)

        for task in self._in_order(tasks()):
            yield task.future.result()
            meter.add(sum(nbytes for _, nbytes in task.parts))

    def _run_of(self, tensor: Step, index: int, model: WholeModel) -> TensorRun:
        return TensorRun(self._plan, tensor, index, self._block, model, self._arithmetic)

    def _observe_model(
        self, run: TensorRun, model: WholeModel, number: int, start: int, count: int
    ) -> Any:
        assert model.measure is not None
        with self._device.stream(), np.errstate(all="ignore"):
            tensor = model.step(run.index).with_inputs(model.measure.group)
            _, inputs = self._reader.read(tensor, start, count)
            block = run.block(number, start, inputs)
            return model.measure.observe(model.block(run.index, block))

    def _tasks(self, pool: ThreadPoolExecutor, model: WholeModel) -> Iterator[_Task]:
        """Submit blocks in file order; the next tensor is measured before this one is merged.

        Small tensors are submitted together, since handing one over takes longer than merging it.
        """
        small: list[Block] = []
        together = 0
        for block in self._blocks(pool, model):
            _, held, _, _, count = block
            full = together + count > MOST_TOGETHER or len(small) == MOST_SMALL
            if held or count > MOST_TOGETHER // 2 or full:
                if small:
                    yield self._submitted(pool, small)
                small, together = [], 0
            if held or count > MOST_TOGETHER // 2:
                yield self._submitted(pool, [block])
            else:
                small.append(block)
                together += count
        if small:
            yield self._submitted(pool, small)

    def _submitted(self, pool: ThreadPoolExecutor, blocks: Sequence[Block]) -> _Task:
        parts = [(run.index, _share(run.tensor, *at)) for run, _, _, *at in blocks]
        run, held, *_ = blocks[0]
        kept = run.tensor.output.nbytes * len(self._plan.coefficients) if held else 0
        return _Task(parts, kept, pool.submit(self._merge_blocks, blocks))

    def _blocks(self, pool: ThreadPoolExecutor, model: WholeModel) -> Iterator[Block]:
        """Blocks in file order, each tensor measured as far as it has to be before."""
        runs = (self._run_of(tensor, index, model) for index, tensor in enumerate(self._plan.steps))
        current = next(runs, None)
        if current is not None:
            self._start_round(pool, current)
        while current is not None:
            self._finish_measuring(pool, current)
            following = next(runs, None)
            if following is not None:
                self._start_round(pool, following)
            if not current.empty:
                held = self._held(current.tensor)
                for number, (start, count) in enumerate(current.ranges):
                    yield current, held, number, start, count
            current = following

    def _held(self, tensor: Step) -> int:
        """What a tensor takes that is merged whole and larger than a block; else nothing."""
        if not isinstance(tensor, Merge) or tensor.span != "tensor":
            return 0
        return bytes_to_hold(tensor) if prod(tensor.output.shape) > self._block else 0

    def _start_round(self, pool: ThreadPoolExecutor, run: TensorRun) -> None:
        """Submit one measuring round over all blocks; single blocks are measured when merged."""
        measure = run.measure
        if measure is None or not measure.wanted or len(run.ranges) == 1:
            return
        if measure.sample:
            tensor = run.merge.with_inputs(measure.group)
            wanted = sample_size(measure, len(tensor.inputs))
            measure.look(self._reader.sample(tensor, wanted, SAMPLE_RUNS))
            measure.sample = 0
        run.observed = True
        run.round = [
            pool.submit(self._observe_block, run, number, start, count)
            for number, (start, count) in enumerate(run.ranges)
        ]

    def _finish_measuring(self, pool: ThreadPoolExecutor, run: TensorRun) -> None:
        while run.round and run.measure is not None:
            observations = [future.result() for future in run.round]
            run.round = []
            run.measure.absorb(observations)
            self._start_round(pool, run)

    def _observe_block(self, run: TensorRun, number: int, start: int, count: int) -> Any:
        assert run.measure is not None
        with self._device.stream(), np.errstate(all="ignore"):
            tensor = run.merge.with_inputs(run.measure.group)
            _, inputs = self._reader.read(tensor, start, count)
            return run.measure.observe(run.block(number, start, inputs))

    def _merge_blocks(self, blocks: Sequence[Block]) -> list[list[NDArray[np.uint8]]]:
        made: list[list[NDArray[np.uint8]]] = []
        for group in alike(self._plan.method, blocks, self._block):
            parts = self._merge_joined(group) if len(group) > 1 else None
            made += parts or [self._merge_block(*block) for block in group]
        return made

    def _merge_joined(self, group: Sequence[Block]) -> list[list[NDArray[np.uint8]]] | None:
        """Merge small tensors as if they were one; None where that is not finite."""
        run, counts = group[0][0], [count for *_, count in group]
        whole = joined([run.merge for run, *_ in group], counts)
        try:
            with self._device.stream(), np.errstate(all="ignore"):
                made = self._merged(run.of(whole), 0, 0, sum(counts))
        except (NotFinite, NonFiniteError):
            return None  # each alone says which it is
        return parts_of(made, counts, ITEM_SIZES[whole.output.dtype])

    def _merge_block(
        self, run: TensorRun, held: int, number: int, start: int, count: int
    ) -> list[NDArray[np.uint8]]:
        tensor = run.tensor
        if not isinstance(tensor, Merge):
            parts = [self._reader.raw(tensor, source, start, count) for source in tensor.sources]
            return parts if isinstance(tensor, Reuse) else parts * len(self._plan.coefficients)
        with self._room.lend(held), self._device.stream(), np.errstate(all="ignore"):
            try:
                return self._merged(run, number, start, count)
            except NotFinite:
                self._refuse_result(run, number, start, count)
                raise
            finally:
                self._reader.release()

    def _merged(
        self, run: TensorRun, number: int, start: int, count: int
    ) -> list[NDArray[np.uint8]]:
        tensor, measure, function = run.merge, run.measure, self._plan.method.function
        if is_sum_of_stored(self._plan.method, tensor):

            def results_of(stored: Sequence[Any]) -> list[Any]:
                return [
                    function(stored, None, each, self._arithmetic) for each in tensor.parameters
                ]

            return self._reader.sum_stored(tensor, start, count, results_of)
        base, inputs = self._reader.read(tensor, start, count, checked=not run.observed)
        block = run.block(number, start, inputs)
        if measure is not None and measure.wanted:
            measure_whole(measure, block, self._arithmetic)
        results = (
            function(block.inputs, run.known(block, position), parameters, self._arithmetic)
            for position, parameters in enumerate(tensor.parameters)
        )
        return encoded(results, block.inputs, base, tensor.output.dtype, self._arithmetic)

    def _refuse_result(self, run: TensorRun, number: int, start: int, count: int) -> None:
        """Raise NonFiniteError for a block that was not finite when rounded; it is merged again."""
        tensor, function = run.merge, self._plan.method.function
        base, inputs = self._reader.read(tensor, start, count)
        block = run.block(number, start, inputs)
        for position, parameters in enumerate(tensor.parameters):
            made = function(block.inputs, run.known(block, position), parameters, self._arithmetic)
            values = self._arithmetic.on_host(worked_out(made, self._arithmetic)).reshape(-1)
            if base is not None:
                values = values + self._arithmetic.on_host(base)
            coefficient = self._plan.coefficients[position].id
            name, dtype = tensor.output.name, tensor.output.dtype
            error = overflow_error(name, coefficient, start, values, dtype)
            if error is not None:
                raise error from None
