"""Blocks of tensors as float32, read into buffers that each thread keeps; NaN is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from merge_ops.checkpoints.checkpoint import Numbers, Stored, TensorSource
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.errors import CheckpointError, NonFiniteError
from merge_ops.kernels.arithmetic import Arithmetic
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.measure import sample_runs
from merge_ops.plans.steps import Merge, Reuse, Step
from merge_ops.stream.overflow import NotFinite, holds_only_finite, overflow_error
from merge_ops.stream.rounding import sums_of_stored, torch_dtype
from merge_ops.stream.together import StoredTogether

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Values


class _Buffers:
    """One input's raw bytes on the host, and its block as float32 values."""

    def __init__(self, block: int, nbytes: int, arithmetic: Arithmetic) -> None:
        self.size = block
        self.raw = arithmetic.staging(nbytes)
        self.bytes = memoryview(cast(bytearray, self.raw))
        self.values = arithmetic.empty((block,))


class BlockReader:
    """Reads any run of elements of a planned tensor, from any thread."""

    def __init__(self, block: int, arithmetic: Arithmetic) -> None:
        self._block = block
        self._arithmetic = arithmetic
        self._local = threading.local()

    def read(
        self, tensor: Merge, start: int, count: int, checked: bool = True
    ) -> tuple[Values | None, Sequence[Values]]:
        """Elements [start, start + count) as float32, each (count,): the base and the inputs.

        With a base (methods on task vectors) the inputs are expert − base. The values live until
        this thread reads again. Raises NonFiniteError unless `checked` is false, CheckpointError.
        """
        return self._read(tensor, [start], count, checked)

    def _read(
        self,
        tensor: Merge,
        starts: Sequence[int],
        length: int,
        checked: bool,
        sampled: bool = False,
    ) -> tuple[Values | None, Sequence[Values]]:
        """Runs of `length` elements, one behind the other; at most a block in all.

        What is `sampled` only says where to look, and need not be what was hashed.
        """
        base: Values | None = None
        inputs: list[Values] = []
        for slot, source in enumerate(tensor.sources):
            values, finite = self._load(slot, source, starts, length, base, checked, sampled)
            if not finite:
                self._refuse(tensor, source, slot, starts, length)
            if tensor.base is not None and slot == 0:
                base = values
            else:
                inputs.append(values)
        return base, inputs

    def _refuse(
        self,
        tensor: Step,
        source: TensorSource,
        slot: int,
        starts: Sequence[int],
        length: int,
    ) -> NoReturn:
        """Raise NonFiniteError for what `_load` found; it is read again to count."""
        values, _ = self._load(slot, source, starts, length, None, checked=False)
        bad = int((~np.isfinite(self._arithmetic.on_host(values))).sum())
        places = {part.checkpoint.source.location: None for part in source.parts}
        raise NonFiniteError(
            f"model '{source.model}': tensor '{tensor.output.name}' holds NaN or infinity"
            f" ({bad} in elements {starts[0]} to {starts[-1] + length - 1}); the checkpoint at"
            f" {' or '.join(places)} is damaged or its training diverged."
            " Nothing was written"
        )

    def raw(self, tensor: Step, source: TensorSource, start: int, count: int) -> NDArray[np.uint8]:
        """It gives `count` elements, as flat bytes, of a tensor that is copied from a source."""
        if not isinstance(source, Stored):
            values, finite = self._load(0, source, [start], count, None, checked=True)
            if not finite:
                self._refuse(tensor, source, 0, [start], count)
            copied = self._arithmetic.copy(values)
            rounded, finite = self._arithmetic.rounded(copied, None, source.dtype)
            if not finite:
                host = self._arithmetic.on_host(values)
                error = overflow_error(tensor.output.name, "", start, host, source.dtype)
                raise error or NotFinite
            return rounded
        size = ITEM_SIZES[source.dtype]
        data = np.empty(count * size, dtype=np.uint8)
        _fetch(source, start * size, memoryview(cast(bytearray, data)))
        if isinstance(tensor, Reuse) or is_buffer(source.name, source.entry):
            return data  # a mask holds infinities on purpose
        if not holds_only_finite(data, source.dtype):
            self._refuse(tensor, source, 0, [start], count)
        return data

    def sample(self, tensor: Merge, wanted: int, runs: int) -> Sequence[Values]:
        """About `wanted` elements of every input, in evenly spread runs."""
        count = tensor.output.nbytes // ITEM_SIZES[tensor.output.dtype]
        starts, length = sample_runs(count, wanted, runs)
        together = max(1, self._block // length)
        parts = [
            [
                self._arithmetic.copy(values)
                for values in self._read(tensor, batch, length, checked=False, sampled=True)[1]
            ]
            for batch in (starts[at : at + together] for at in range(0, len(starts), together))
        ]
        return [self._arithmetic.joined(runs) for runs in zip(*parts, strict=True)]

    def sum_stored(
        self,
        tensor: Merge,
        start: int,
        count: int,
        results_of: Callable[[Sequence[NDArray[np.uint16]]], Iterable[Values | WeightedSum]],
    ) -> list[NDArray[np.uint8]]:
        """It merges and rounds elements [start, start + count) of a tensor that `is_sum_of_stored`.

        `results_of` gives the method's sums of inputs as they are stored, each (count,). Each
        result is flat bytes, (2 count,). Raises as `read` does, and NotFinite for the results.
        """
        stored: list[NDArray[np.uint16]] = []
        for slot, source in enumerate(tensor.sources):
            buffers = self._buffers(slot, count, 2)
            _fetch(cast(Stored, source), start * 2, buffers.bytes[: count * 2])
            stored.append(buffers.raw[: count * 2].view(np.uint16))
        base = stored.pop(0) if tensor.base is not None else None
        blocks, finite = sums_of_stored(results_of(stored), stored, base, self._arithmetic)
        if not finite:
            self.read(tensor, start, count)  # which says where an input is not
            raise NotFinite
        return blocks

    def _load(
        self,
        slot: int,
        source: TensorSource,
        starts: Sequence[int],
        length: int,
        base: Values | None,
        checked: bool,
        sampled: bool = False,
    ) -> tuple[Values, bool]:
        """Runs of `length` elements, one behind the other, as flat float32, minus `base` if given.

        Beside them whether all are finite, as far as that is `checked`.
        """
        count = len(starts) * length
        size = ITEM_SIZES[source.dtype]
        buffers = self._buffers(slot, count, size)
        values = buffers.values[:count]
        if isinstance(source, Numbers):
            for number, start in enumerate(starts):
                part: Any = self._arithmetic.from_host(source.numbers(start, length))
                values[number * length : (number + 1) * length] = part
            return values, self._arithmetic.subtract(values, base, checked)
        if not isinstance(source, Stored):
            into = self._arithmetic.tensor(values)
            for number, start in enumerate(starts):
                source.fill(self._part, start, into[number * length : (number + 1) * length])
            return values, self._arithmetic.subtract(values, base, checked)
        run = length * size
        for number, start in enumerate(starts):
            part = buffers.bytes[number * run : (number + 1) * run]
            _fetch(source, start * size, part, sampled)
        raw = buffers.raw[: count * size]
        return values, self._arithmetic.widen(raw, source.dtype, base, values, checked)

    def _part(self, stored: Stored, start: int, count: int) -> torch.Tensor:
        import torch

        values = fetch_stored(stored, start, count)
        return torch.as_tensor(self._arithmetic.from_host(values.numpy()))

    def release(self) -> None:
        """Let go of this thread's buffers that are larger than a block."""
        slots: dict[int, _Buffers] = getattr(self._local, "slots", {})
        for slot in [slot for slot, buffers in slots.items() if buffers.size > self._block]:
            del slots[slot]

    def _buffers(self, slot: int, count: int, size: int) -> _Buffers:
        """This thread's buffers for one input; larger than a block for long rows or tensors."""
        slots: dict[int, _Buffers] | None = getattr(self._local, "slots", None)
        if slots is None:
            slots = self._local.slots = {}
        held = slots.get(slot)
        if held is not None and len(held.raw) >= count * size and held.size >= count:
            return held
        slots.pop(slot, None)
        nbytes = count * size if count > self._block else self._block * 8
        slots[slot] = _Buffers(max(self._block, count), nbytes, self._arithmetic)
        return slots[slot]


def fetch_stored(stored: Stored, start: int, count: int) -> torch.Tensor:
    """Elements [start, start + count) of a stored tensor: flat float32, on the CPU."""
    import torch

    size = ITEM_SIZES[stored.dtype]
    raw = torch.empty(count * size, dtype=torch.uint8)
    if count:
        _fetch(stored, start * size, memoryview(cast(bytearray, raw.numpy())))
    return raw.view(torch_dtype(stored.dtype)).to(torch.float32)


def read_values(source: TensorSource, start: int, count: int) -> torch.Tensor:
    """Elements [start, start + count) of any source: flat float32 of its own, on the CPU."""
    import torch

    values = torch.empty(count, dtype=torch.float32)
    source.fill(fetch_stored, start, values)
    return values


def _fetch(stored: Stored, offset: int, buffer: memoryview, sampled: bool = False) -> None:
    if isinstance(stored, StoredTogether):
        _fetch_together(stored, buffer)
        return
    entry, checkpoint = stored.entry, stored.checkpoint
    source = checkpoint.source
    try:
        if sampled and isinstance(source, FolderSource):
            source.look_into(entry.file, entry.offset + offset, buffer)
        else:
            source.read_into(entry.file, entry.offset + offset, buffer)
    except OSError as error:
        raise CheckpointError(
            f"model '{checkpoint.name}': {checkpoint.source.location}/{entry.file} cannot be"
            f" read at byte {entry.offset + offset} ({error})"
        ) from error


def _fetch_together(stored: StoredTogether, buffer: memoryview) -> None:
    """Read all of its members, one behind the other: with one read, where they lie close."""
    runs = [*stored.runs()]
    span = stored.span() if len(runs) > 1 else None
    data = memoryview(bytearray(span.nbytes)) if span is not None else None
    if span is not None and data is not None:
        _fetch(span, 0, data)
    at = 0
    for run in runs:
        part = buffer[at : at + run.nbytes]
        if span is not None and data is not None:
            start = run.entry.offset - span.entry.offset
            part[:] = data[start : start + run.nbytes]
        else:
            _fetch(run, 0, part)
        at += run.nbytes
