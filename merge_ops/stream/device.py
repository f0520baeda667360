"""Where block arithmetic runs: the CPU, with or without torch, or CUDA when it is there."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_ops.errors import DeviceError

if TYPE_CHECKING:
    import torch

# What the drivers of GPUs that torch may call "cuda" put into /dev: NVIDIA, Tegra, WSL, AMD.
_GPU_NODES = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")


class Device:
    """The CPU without torch: blocks are arrays, and a method's loops in C are all that runs."""

    arrays = True
    is_cuda = False

    @property
    def torch_device(self) -> torch.device:
        """For what has to be a tensor all the same."""
        import torch

        return torch.device("cpu")

    @contextmanager
    def stream(self) -> Generator[None]:
        """Work of this thread goes on its own CUDA stream; on the CPU this does nothing."""
        yield

    @contextmanager
    def single_threaded(self) -> Generator[None]:
        """Keep torch from splitting one operation: blocks are the parallelism."""
        yield

    def use_one_core(self) -> None:
        """Keep torch from splitting operations of this thread."""


class TorchDevice(Device):
    """A torch device, and for CUDA one stream for each worker thread."""

    arrays = False

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.is_cuda = device.type == "cuda"
        self._local = threading.local()

    @property
    def torch_device(self) -> torch.device:
        """Where tensors are."""
        return self._device

    @contextmanager
    def stream(self) -> Generator[None]:
        """Work of this thread goes on its own CUDA stream; on the CPU this does nothing."""
        import torch

        if not self.is_cuda:
            yield
            return
        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)
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

    def use_one_core(self) -> None:
        """Keep torch from splitting operations of this thread.

        What `single_threaded` sets reaches a new thread with its second operation only: its first
        factorisation would be split, and have other bits.
        """
        import torch

        torch.set_num_threads(1)


def open_device(name: str, arrays: bool = False) -> Device:
    """`auto` (CUDA when there), `cpu` or `cuda[:n]`; on the CPU without torch where `arrays` do.

    Raises DeviceError where it is not there.
    """
    if name != "auto" and name != "cpu" and not name.startswith("cuda"):
        raise DeviceError(f"device {name!r} is unknown; allowed: auto, cpu, cuda")
    if arrays and not may_be_cuda(name):
        return Device()
    import torch

    available: Any = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    if name.startswith("cuda") and not available:
        raise DeviceError(f"device {name!r} was asked for, but torch sees no GPU; use auto or cpu")
    return TorchDevice(torch.device(name))


def may_be_cuda(name: str) -> bool:
    """Whether torch must be asked, which takes a second to import."""
    if name != "auto":
        return name != "cpu"
    nodes = Path("/dev")
    maybe = sys.platform != "linux" or any(any(nodes.glob(each)) for each in _GPU_NODES)
    return maybe and importlib.util.find_spec("torch") is not None
