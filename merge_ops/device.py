"""Where block arithmetic runs: the CPU, or CUDA when it is there."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from merge_ops.errors import DeviceError

if TYPE_CHECKING:
    import torch


class Device:
    """A torch device, and for CUDA one stream for each worker thread."""

    def __init__(self, device: torch.device) -> None:
        self.torch_device = device
        self._local = threading.local()

    @property
    def is_cuda(self) -> bool:
        """Whether blocks travel to a GPU."""
        return self.torch_device.type == "cuda"

    @contextmanager
    def stream(self) -> Generator[None]:
        """Work of this thread goes on its own CUDA stream; on the CPU this does nothing."""
        import torch

        if not self.is_cuda:
            yield
            return
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self.torch_device)
        with torch.cuda.stream(self._local.stream):
            yield
            self._local.stream.synchronize()

    @contextmanager
    def single_threaded(self) -> Generator[None]:
        """Keep torch from splitting one operation: blocks are the parallelism."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def use_one_core() -> None:
    """Keep torch from splitting operations of this thread.

    What `single_threaded` sets reaches a new thread with its second operation only: its first
    factorisation would be split, and have other bits.
    """
    import torch

    torch.set_num_threads(1)


def open_device(name: str) -> Device:
    """`auto` (CUDA when there), `cpu` or `cuda[:n]`. Raises DeviceError where it is not there."""
    import torch

    available: Any = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name != "cpu" and not name.startswith("cuda"):
        raise DeviceError(f"device {name!r} is unknown; allowed: auto, cpu, cuda")
    if name.startswith("cuda") and not available:
        raise DeviceError(f"device {name!r} was asked for, but torch sees no GPU; use auto or cpu")
    return Device(torch.device(name))
