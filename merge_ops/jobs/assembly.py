"""From a plan to whole checkpoints: weights through the stream, and the files beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from merge_ops.checkpoints.files.byte_sources import ByteSink, ByteWriter, FolderSink
from merge_ops.checkpoints.files.copied_files import SideFile, pieces_of
from merge_ops.checkpoints.layout import Shard, index_file
from merge_ops.errors import OutputError
from merge_ops.plans.plan import Output, Plan
from merge_ops.plans.side_files import side_files
from merge_ops.provenance.model_card import model_card
from merge_ops.stream.heap import freed_memory_kept
from merge_ops.stream.stream import BlockStream, Progress, StreamSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SMALL = 32 << 10
WRITTEN_TOGETHER = 1 << 20
"""Bytes of a block that waits for others, and of what is written at once."""


@dataclass(frozen=True)
class MergeReport:
    """A merge report states what a merge did: bytes of weights read and written, wall seconds."""

    seconds: float
    bytes_read: int
    bytes_written: int

    @property
    def megabytes_per_second(self) -> float:
        """Return the bytes read and written, in 10⁶ a second."""
        return (self.bytes_read + self.bytes_written) / 1e6 / max(self.seconds, 1e-9)


def merge(
    plan: Plan,
    sinks: Mapping[str, ByteSink] | Path | str,
    settings: StreamSettings | None = None,
    progress: Progress | None = None,
    card: Callable[[Plan, Output], str] = model_card,
) -> MergeReport:
    """Carry out a plan: write one whole checkpoint into each coefficient's sink, from one read.

    `sinks` holds a sink for each coefficient id, or is a folder. A folder must be new or empty; a
    sweep makes a folder in it for each coefficient. `progress(done, total)` counts bytes of inputs
    merged. `card` makes the README.md of an output.

    Returns what was read and written. Raises OutputError where a sink is missing or the folder is
    not empty, NonFiniteError or CheckpointError for bad inputs, and OSError for bad places. After
    an error the sinks hold no checkpoint, and their owner throws them away.
    """
    if not isinstance(sinks, Mapping):
        sinks = folder_sinks(plan, Path(sinks))
    missing = [each.id for each in plan.coefficients if each.id not in sinks]
    if missing:
        raise OutputError(f"no sink was given for coefficient {missing[0]!r}")
    started = time.perf_counter()
    settings = settings or StreamSettings()
    ordered = [sinks[each.id] for each in plan.coefficients]
    with (
        freed_memory_kept(),
        ThreadPoolExecutor(settings.thread_count(), "write") as pool,
        ExitStack() as stack,
    ):
        writer = _WeightWriter(plan, ordered, stack, pool)
        BlockStream(plan, settings).run(writer.take, progress)
        writer.finish()
    for output, sink in zip(plan.outputs, ordered, strict=True):
        files: dict[str, SideFile] = {**index_file(plan.shards), **side_files(plan)}
        files["README.md"] = card(plan, output).encode()
        for name, data in files.items():
            with sink.open(name, len(data)) as file:
                for piece in pieces_of(data):
                    file.write(piece)
    return MergeReport(time.perf_counter() - started, plan.bytes_read, plan.bytes_written)


def folder_sinks(plan: Plan, out: Path) -> dict[str, FolderSink]:
    """Return a sink for each coefficient, by its id.

    It is `out`, or a folder in `out` where the recipe has a sweep. Raises OutputError where `out`
    exists and is not an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} exists and is not empty; name a new folder or empty this one")
    folders = {each.id: out / each.id if plan.recipe.sweep else out for each in plan.coefficients}
    return {coefficient: FolderSink(folder) for coefficient, folder in folders.items()}


class _WeightWriter:
    """Writes blocks as they come, shard after shard, into every coefficient's sink.

    The sinks of a sweep are written by several threads: one cannot keep up with the merging.
    """

    def __init__(
        self, plan: Plan, sinks: Sequence[ByteSink], stack: ExitStack, pool: ThreadPoolExecutor
    ) -> None:
        self._sinks = sinks
        self._stack = stack
        self._pool = pool
        self._shards = list(plan.shards)
        self._last: list[int] = []  # index of the last tensor of each shard
        count = 0
        for shard in plan.shards:
            count += len(shard.tensors)
            self._last.append(count - 1)
        self._open: list[ByteWriter] = []
        self._waiting = bytearray()  # of the one sink that there is
        self._current = -1

    def take(self, tensor: int, blocks: Sequence[NDArray[np.uint8]]) -> None:
        """It appends one block for every coefficient, each the flat bytes of some elements."""
        while self._current < 0 or tensor > self._last[self._current]:
            self._next_shard()
        data = [memoryview(cast(bytes, block)) for block in blocks]
        if len(data) == 1:
            self._write_one(data[0])
            return
        pending = [
            self._pool.submit(writer.write, block)
            for writer, block in zip(self._open, data, strict=True)
        ]
        wait(pending)
        for each in pending:
            each.result()

    def _write_one(self, data: memoryview) -> None:
        """Small blocks are written together: a call of the system costs more than they do."""
        if len(data) <= SMALL:
            self._waiting += data
            if len(self._waiting) < WRITTEN_TOGETHER:
                return
            data = memoryview(b"")
        self._flush()
        if len(data):
            self._open[0].write(data)

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, bytearray()
            self._open[0].write(memoryview(waiting))

    def finish(self) -> None:
        """Open what is left (shards of empty tensors) and close everything."""
        while self._current + 1 < len(self._shards):
            self._next_shard()
        self._flush()
        self._stack.close()

    def _next_shard(self) -> None:
        self._flush()
        self._stack.close()
        self._current += 1
        shard: Shard = self._shards[self._current]
        self._open = [
            self._stack.enter_context(sink.open(shard.file, shard.size)) for sink in self._sinks
        ]
        for writer in self._open:
            writer.write(shard.header)
