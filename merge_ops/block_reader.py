"""Blocks of tensors as float32, read into buffers that each thread keeps; NaN is refused."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from merge_ops.checkpoint import Checkpoint
from merge_ops.device import Device
from merge_ops.errors import CheckpointError, NonFiniteError
from merge_ops.header import ITEM_SIZES, TensorEntry
from merge_ops.plan import Plan, PlannedTensor

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def torch_dtype(code: str) -> torch.dtype:
    """The torch dtype of a safetensors float code."""
    import torch

    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16
    }[code]  # fmt: skip


class _Buffers:
    """One input's raw bytes (pinned for CUDA) and its float32 block."""

    def __init__(self, block: int, device: Device) -> None:
        import torch

        self.raw = torch.empty(block * 8, dtype=torch.uint8, pin_memory=device.is_cuda)
        self.bytes = memoryview(cast(bytearray, self.raw.numpy()))
        self.float = torch.empty(block, dtype=torch.float32, device=device.torch_device)


class BlockReader:
    """Reads any run of elements of a planned tensor, from any thread."""

    def __init__(self, plan: Plan, block: int, device: Device) -> None:
        self._base = plan.base
        self._inputs = plan.inputs
        self._block = block
        self._device = device
        self._local = threading.local()

    def read(
        self, tensor: PlannedTensor, start: int, count: int
    ) -> tuple[torch.Tensor | None, Sequence[torch.Tensor]]:
        """Elements [start, start + count) as flat float32 tensors: the base and the inputs.

        With a base (methods on task vectors) the inputs are expert − base. The tensors live until
        this thread reads again. Raises NonFiniteError, CheckpointError.
        """
        base = None
        if tensor.base is not None:
            base = self._load(0, self._base, tensor, tensor.base, start, count)
        inputs: list[torch.Tensor] = []
        pairs = zip(self._inputs, tensor.inputs, strict=True)
        for slot, (checkpoint, entry) in enumerate(pairs, start=1):
            values = self._load(slot, checkpoint, tensor, entry, start, count)
            inputs.append(values if base is None else values.sub_(base))
        return base, inputs

    def raw(self, tensor: PlannedTensor, start: int, count: int) -> NDArray[np.uint8]:
        """The base's bytes of a tensor that is copied."""
        entry = cast(TensorEntry, tensor.base)
        size = ITEM_SIZES[entry.dtype]
        data = np.empty(count * size, dtype=np.uint8)
        self._fetch(self._base, entry, start * size, memoryview(cast(bytearray, data)))
        return data

    def sample(self, tensor: PlannedTensor, wanted: int, runs: int) -> Sequence[torch.Tensor]:
        """About `wanted` elements of every input, in evenly spread runs."""
        import torch

        count = tensor.output.nbytes // ITEM_SIZES[tensor.output.dtype]
        length = min(max(64, wanted // runs), self._block, count)
        runs = max(1, min(wanted // length, count // length))
        parts: list[list[torch.Tensor]] = [[] for _ in tensor.inputs]
        for number in range(runs):
            start = (count - length) * number // max(1, runs - 1)
            _, inputs = self.read(tensor, start, length)
            for part, values in zip(parts, inputs, strict=True):
                part.append(values.clone())
        return [torch.cat(part) for part in parts]

    def encode(self, merged: torch.Tensor, code: str) -> NDArray[np.uint8]:
        """A float32 block rounded once to the output dtype, as bytes of its own."""
        import torch

        rounded = merged.to(torch_dtype(code)).contiguous()
        return cast("NDArray[np.uint8]", rounded.cpu().view(torch.uint8).numpy())

    def _load(
        self,
        slot: int,
        checkpoint: Checkpoint,
        tensor: PlannedTensor,
        entry: TensorEntry,
        start: int,
        count: int,
    ) -> torch.Tensor:
        size = ITEM_SIZES[entry.dtype]
        buffers = self._buffers(slot)
        self._fetch(checkpoint, entry, start * size, buffers.bytes[: count * size])
        stored = buffers.raw[: count * size].view(torch_dtype(entry.dtype))
        values = buffers.float[:count]
        values.copy_(stored, non_blocking=True)
        # One cheap sum finds any NaN or Inf; only then is it worth counting them.
        if not np.isfinite(float(values.sum())):
            bad = int((~values.isfinite()).sum())
            if bad:
                raise NonFiniteError(
                    f"model '{checkpoint.name}': tensor '{tensor.output.name}' holds NaN or"
                    f" infinity ({bad} in elements {start} to {start + count - 1}); the checkpoint"
                    f" at {checkpoint.source.location} is damaged or its training diverged. Nothing"
                    " was written"
                )
        return values

    def _fetch(
        self, checkpoint: Checkpoint, entry: TensorEntry, offset: int, buffer: memoryview
    ) -> None:
        try:
            checkpoint.source.read_into(entry.file, entry.offset + offset, buffer)
        except OSError as error:
            raise CheckpointError(
                f"model '{checkpoint.name}': {checkpoint.source.location}/{entry.file} cannot be"
                f" read at byte {entry.offset + offset} ({error})"
            ) from error

    def _buffers(self, slot: int) -> _Buffers:
        slots: dict[int, _Buffers] | None = getattr(self._local, "slots", None)
        if slots is None:
            slots = self._local.slots = {}
        if slot not in slots:
            slots[slot] = _Buffers(self._block, self._device)
        return slots[slot]
