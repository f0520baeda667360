"""Blocks of tensors as float32, read into buffers that each thread keeps; NaN is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import numpy as np

from merge_ops.checkpoints.checkpoint import Stored, TensorSource
from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.errors import CheckpointError, NonFiniteError
from merge_ops.kernels import loops as kernels
from merge_ops.kernels.values import array_of, copy_of, joined, on_cpu
from merge_ops.measures.combination import WeightedSum, grouped, sums_as_bfloat16, worked_out
from merge_ops.measures.measure import sample_runs
from merge_ops.plans.steps import Merge, Step
from merge_ops.stream.device import Device
from merge_ops.stream.stored_sums import sums_of_stored

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def torch_dtype(code: str) -> torch.dtype:
    """The torch dtype of a safetensors float code."""
    import torch

    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16
    }[code]  # fmt: skip


def _array_dtype(code: str) -> np.dtype[Any]:
    """The numpy dtype of a safetensors float code; bfloat16 as its bits."""
    return np.dtype({"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[code])


class _Buffers:
    """One input's raw bytes (pinned for CUDA) and its float32 block."""

    def __init__(self, block: int, nbytes: int, device: Device) -> None:
        self.size = block
        self.nbytes = nbytes
        self.raw: Any
        self.float: Any
        self._dtype: Callable[[str], Any] = _array_dtype if device.arrays else torch_dtype
        if device.arrays:
            self.raw = np.empty(nbytes, dtype=np.uint8)
            self.bytes = memoryview(self.raw)
            self.float = np.empty(block, dtype=np.float32)
            return
        import torch

        self.raw = torch.empty(nbytes, dtype=torch.uint8, pin_memory=device.is_cuda)
        self.bytes = memoryview(cast(bytearray, self.raw.numpy()))
        self.float = torch.empty(block, dtype=torch.float32, device=device.torch_device)

    def stored(self, nbytes: int, code: str) -> Any:
        """The first bytes as elements of a dtype."""
        return self.raw[:nbytes].view(self._dtype(code))


class BlockReader:
    """Reads any run of elements of a planned tensor, from any thread."""

    def __init__(self, block: int, device: Device) -> None:
        self._block = block
        self._device = device
        self._local = threading.local()

    def read(
        self, tensor: Merge, start: int, count: int, checked: bool = True
    ) -> tuple[torch.Tensor | None, Sequence[torch.Tensor]]:
        """Elements [start, start + count) as flat float32 tensors: the base and the inputs.

        With a base (methods on task vectors) the inputs are expert − base. The tensors live until
        this thread reads again. Raises NonFiniteError unless `checked` is false, CheckpointError.
        """
        return self._read(tensor, [start], count, checked)

    def _read(
        self, tensor: Merge, starts: Sequence[int], length: int, checked: bool
    ) -> tuple[torch.Tensor | None, Sequence[torch.Tensor]]:
        """Runs of `length` elements, one behind the other; at most a block in all."""
        base: torch.Tensor | None = None
        inputs: list[torch.Tensor] = []
        for slot, source in enumerate(tensor.sources):
            values, finite = self._load(slot, source, starts, length, base, checked)
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
        bad = int((~np.isfinite(on_cpu(values))).sum())
        places = {part.checkpoint.source.location: None for part in source.parts}
        raise NonFiniteError(
            f"model '{source.model}': tensor '{tensor.output.name}' holds NaN or infinity"
            f" ({bad} in elements {starts[0]} to {starts[-1] + length - 1}); the checkpoint at"
            f" {' or '.join(places)} is damaged or its training diverged."
            " Nothing was written"
        )

    def raw(self, tensor: Step, source: TensorSource, start: int, count: int) -> NDArray[np.uint8]:
        """The bytes of a tensor that is copied from one of its sources."""
        if not isinstance(source, Stored):
            values, finite = self._load(0, source, [start], count, None, checked=True)
            if not finite:
                self._refuse(tensor, source, 0, [start], count)
            return self._rounded(copy_of(values), None, source.dtype)
        size = ITEM_SIZES[source.dtype]
        data = np.empty(count * size, dtype=np.uint8)
        _fetch(source, start * size, memoryview(cast(bytearray, data)))
        return data

    def sample(self, tensor: Merge, wanted: int, runs: int) -> Sequence[torch.Tensor]:
        """About `wanted` elements of every input, in evenly spread runs."""
        count = tensor.output.nbytes // ITEM_SIZES[tensor.output.dtype]
        starts, length = sample_runs(count, wanted, runs)
        together = max(1, self._block // length)
        parts = [
            [copy_of(values) for values in self._read(tensor, batch, length, checked=False)[1]]
            for batch in (starts[at : at + together] for at in range(0, len(starts), together))
        ]
        return [joined(part) for part in zip(*parts, strict=True)]

    def encode(
        self,
        results: Iterable[torch.Tensor | WeightedSum],
        inputs: Sequence[torch.Tensor],
        base: torch.Tensor | None,
        code: str,
    ) -> list[NDArray[np.uint8]]:
        """What a method made of the inputs for each coefficient, as bytes of the output dtype.

        Each is added to the base where there is one, and rounded once. Results may be overwritten;
        of those that are no sums of the inputs two are held at a time.
        """
        encoded: list[NDArray[np.uint8]] = []
        for group in grouped(results, inputs):
            sums = [each for each in group if isinstance(each, WeightedSum)]
            bits = sums_as_bfloat16(sums, base) if sums and code == "BF16" else None
            if bits is not None:
                encoded += [each.view(np.uint8) for each in bits]
            else:
                encoded += [self._rounded(worked_out(each), base, code) for each in group]
        return encoded

    def sum_stored(
        self,
        tensor: Merge,
        start: int,
        count: int,
        sums_of: Callable[[Sequence[NDArray[np.uint16]]], list[WeightedSum]],
    ) -> list[NDArray[np.uint8]]:
        """`read` and `encode` at once, of a tensor that `is_sum_of_stored`; for arrays only.

        `sums_of` gives the method's sums of inputs as they are stored. Raises as `read` does.
        """
        stored: list[NDArray[np.uint16]] = []
        for slot, source in enumerate(tensor.sources):
            buffers = self._buffers(slot, count, 2)
            _fetch(cast(Stored, source), start * 2, buffers.bytes[: count * 2])
            stored.append(buffers.stored(count * 2, source.dtype))
        base = stored.pop(0) if tensor.base is not None else None
        bits, finite = sums_of_stored(sums_of(stored), base)
        if not finite:
            self.read(tensor, start, count)  # which says where
        return [each.view(np.uint8) for each in bits]

    def _rounded(
        self, merged: torch.Tensor, base: torch.Tensor | None, code: str
    ) -> NDArray[np.uint8]:
        """A float32 block, added to the base where there is one, rounded once to the output dtype.

        The bytes are its own; `merged` may be overwritten.
        """
        merged = merged.reshape(-1)
        bits = kernels.to_bfloat16(merged, base) if code == "BF16" else None
        if bits is not None:
            return bits.view(np.uint8)
        if base is not None:
            merged += base
        array = array_of(merged)
        if array is not None:
            return array.astype(_array_dtype(code), copy=False).view(np.uint8)
        import torch

        rounded = merged.to(torch_dtype(code)).contiguous()
        return cast("NDArray[np.uint8]", rounded.cpu().view(torch.uint8).numpy())

    def _load(
        self,
        slot: int,
        source: TensorSource,
        starts: Sequence[int],
        length: int,
        base: torch.Tensor | None,
        checked: bool,
    ) -> tuple[torch.Tensor, bool]:
        """Runs of `length` elements, one behind the other, as flat float32, minus `base` if given.

        Beside them whether all are finite, as far as that is `checked`.
        """
        count = len(starts) * length
        size = ITEM_SIZES[source.dtype]
        buffers = self._buffers(slot, count, size)
        values = buffers.float[:count]
        if not isinstance(source, Stored):
            for number, start in enumerate(starts):
                source.fill(self._part, start, values[number * length : (number + 1) * length])
            return _minus(values, base, checked)
        run = length * size
        for number, start in enumerate(starts):
            _fetch(source, start * size, buffers.bytes[number * run : (number + 1) * run])
        stored = buffers.stored(count * size, source.dtype)
        finite = kernels.from_bfloat16(stored, base, values) if source.dtype == "BF16" else None
        if finite is not None:
            return values, finite or not checked
        if self._device.arrays:
            with np.errstate(over="ignore", invalid="ignore"):
                values[:] = stored
        else:
            values.copy_(stored, non_blocking=True)
        return _minus(values, base, checked)

    def _part(self, stored: Stored, start: int, count: int) -> torch.Tensor:
        return fetch_stored(stored, start, count).to(self._device.torch_device)

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
        if slot in slots and slots[slot].nbytes >= count * size and slots[slot].size >= count:
            return slots[slot]
        slots.pop(slot, None)
        nbytes = count * size if count > self._block else self._block * 8
        slots[slot] = _Buffers(max(self._block, count), nbytes, self._device)
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


def _fetch(stored: Stored, offset: int, buffer: memoryview) -> None:
    entry, checkpoint = stored.entry, stored.checkpoint
    try:
        checkpoint.source.read_into(entry.file, entry.offset + offset, buffer)
    except OSError as error:
        raise CheckpointError(
            f"model '{checkpoint.name}': {checkpoint.source.location}/{entry.file} cannot be"
            f" read at byte {entry.offset + offset} ({error})"
        ) from error


def _minus(
    values: torch.Tensor, base: torch.Tensor | None, checked: bool
) -> tuple[torch.Tensor, bool]:
    """The values less the base, in their place; and whether they were finite before."""
    # One cheap sum finds any NaN or infinity; only if it does is it worth looking at each.
    with np.errstate(over="ignore", invalid="ignore"):
        finite = not checked or bool(np.isfinite(float(values.sum())))
        finite = finite or bool(np.isfinite(on_cpu(values)).all())
        if base is not None:
            values -= base
    return values, finite
