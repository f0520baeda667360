"""Where block arithmetic runs: the CPU, by the loops in C where they were compiled, or CUDA."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merge_ops.checkpoints.checkpoint import Numbers, Stored
from merge_ops.errors import DeviceError
from merge_ops.kernels.arithmetic import Arithmetic
from merge_ops.kernels.cores import torch_threads
from merge_ops.kernels.library import library
from merge_ops.methods.registry import Span
from merge_ops.plans.plan import Plan
from merge_ops.plans.steps import Merge

if TYPE_CHECKING:
    from merge_ops.kernels.torch_arithmetic import TorchArithmetic

# What the drivers of GPUs that torch may call "cuda" put into /dev: NVIDIA, Tegra, WSL, AMD.
_GPU_NODES = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")


class Device:
    """The CPU: what a run computes with, and how its threads share the cores.

    `with_torch` says that torch is used at all, be it by sources or by the method.
    """

    def __init__(self, arithmetic: Arithmetic, with_torch: bool) -> None:
        self.arithmetic = arithmetic
        self._with_torch = with_torch

    @contextmanager
    def stream(self) -> Generator[None]:
        """Work of this thread goes on its own CUDA stream; on the CPU this does nothing."""
        yield

    @contextmanager
    def single_threaded(self) -> Generator[None]:
        """Keep torch from splitting one operation: blocks are the parallelism."""
        if not self._with_torch:
            yield
            return
        with torch_threads(1):
            yield

    def use_one_core(self) -> None:
        """Keep torch from splitting operations of this thread.

        What `single_threaded` sets reaches a new thread with its second operation only: its first
        factorisation would be split, and have other bits.
        """
        if self._with_torch:
            import torch

            torch.set_num_threads(1)


class CudaDevice(Device):
    """A GPU, and one CUDA stream for each worker thread."""

    def __init__(self, arithmetic: TorchArithmetic) -> None:
        super().__init__(arithmetic, with_torch=True)
        self._device = arithmetic.device
        self._local = threading.local()

    @contextmanager
    def stream(self) -> Generator[None]:
        """Work of this thread goes on its own CUDA stream, and has ended afterwards."""
        import torch

        if not hasattr(self._local, "stream"):
            self._local.stream = torch.cuda.Stream(self._device)
        with torch.cuda.stream(self._local.stream):
            yield
            self._local.stream.synchronize()


def open_device(name: str, with_torch: bool = True) -> Device:
    """The device `name` (see `choose_device`) with the arithmetic of a run.

    On the CPU that is the compiled loops, or torch where they are missing. Without `with_torch`
    nothing but the arithmetic may need torch. Raises DeviceError where the device is not there.
    """
    chosen = choose_device(name)
    if chosen != "cpu":
        from merge_ops.kernels.torch_arithmetic import TorchArithmetic

        return CudaDevice(TorchArithmetic(chosen))
    loops = library()
    if loops is not None:
        from merge_ops.kernels.loops import Loops

        return Device(Loops(loops), with_torch)
    from merge_ops.kernels.torch_arithmetic import TorchArithmetic

    return Device(TorchArithmetic(), with_torch=True)


def choose_device(name: str = "auto") -> str:
    """The device that `auto` (CUDA when there), `cpu` or `cuda[:n]` stands for: cpu or cuda[:n].

    Raises DeviceError where it is unknown or not there.
    """
    if name != "auto" and name != "cpu" and not name.startswith("cuda"):
        raise DeviceError(f"device {name!r} is unknown; allowed: auto, cpu, cuda")
    if not may_be_cuda(name):
        return "cpu"
    import torch

    available: Any = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    if not available:
        raise DeviceError(f"device {name!r} was asked for, but torch sees no GPU; use auto or cpu")
    return name


def arithmetic_kind(name: str) -> str:
    """What decides the bits of a merge on the device `name`: "cpu", or a kind of GPU.

    A plan's digest names it. Raises DeviceError where the device is not there.
    """
    return "cpu" if choose_device(name) == "cpu" else open_device(name).arithmetic.kind


def may_be_cuda(name: str) -> bool:
    """Whether torch must be asked, which takes a second to import."""
    if name != "auto":
        return name != "cpu"
    nodes = Path("/dev")
    maybe = sys.platform != "linux" or any(any(nodes.glob(each)) for each in _GPU_NODES)
    return maybe and importlib.util.find_spec("torch") is not None


def can_do_without_torch(plan: Plan, device: str) -> bool:
    """Whether loops in C are all that the plan's arithmetic needs on this device."""
    return not may_be_cuda(device) and library() is not None and not needs_torch(plan)


def needs_torch(plan: Plan) -> bool:
    """Whether the method, or a source, uses torch itself."""
    steps = [step.planned for step in plan.steps]
    spans: set[Span] = {step.span for step in steps if isinstance(step, Merge)}
    if not all(map(plan.method.works_on_arrays, spans)):
        return True
    kinds = {type(source) for step in steps for source in step.sources}
    return not all(issubclass(each, (Stored, Numbers)) for each in kinds)
