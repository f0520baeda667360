"""Memory for tensors that must be held whole: how much one takes, and who may have it when."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING

from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.errors import Fault, SettingsError
from merge_ops.kernels.cores import memory_limits
from merge_ops.plans.steps import Merge

if TYPE_CHECKING:
    from merge_ops.plans.plan import Plan

GIB = 1 << 30


class Room:
    """So many bytes, lent to whoever waits for them; who wants more than all gets all."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    @contextmanager
    def lend(self, nbytes: int) -> Generator[None]:
        """Wait until there is room for `nbytes`, and keep it for the duration."""
        nbytes = min(nbytes, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


def bytes_to_hold(tensor: Merge) -> int:
    """About what it takes to merge a tensor held whole.

    Its inputs as stored and in float32, the result, and square matrices in float64 as wide as its
    shorter side is long, as methods on matrices make them: (inputs + 2)².
    """
    shape = tensor.output.shape
    each = sum(4 + ITEM_SIZES[source.dtype] for source in tensor.sources) + 8
    results = ITEM_SIZES[tensor.output.dtype] * len(tensor.parameters)
    squares = 8 * min(shape) ** 2 * (len(tensor.inputs) + 2) ** 2 if len(shape) == 2 else 0
    return (each + results) * prod(shape) + squares


def check_room(plan: Plan, machine: int) -> None:
    """Raise SettingsError where a tensor held whole takes more than `machine` bytes."""
    whole = [each for each in plan.steps if isinstance(each, Merge) and each.span == "tensor"]
    largest = max(whole, key=bytes_to_hold, default=None)
    if largest is None or bytes_to_hold(largest) <= machine:
        return
    shape = " × ".join(map(str, largest.output.shape))
    problem = (
        f"of this machine is {machine / GIB:.1f} GiB; {plan.method.name} holds a tensor whole, and"
        f" '{largest.output.name}' ({shape}) with {len(largest.inputs)} inputs and"
        f" {len(largest.parameters)} coefficient(s) takes about"
        f" {bytes_to_hold(largest) / GIB:.1f} GiB: merge fewer experts or coefficients at a time,"
        " use a larger machine, or a method that works block by block"
    )
    raise SettingsError("settings of the merge", [Fault("memory", problem)])


def machine_memory() -> int:
    """Bytes of memory this process may ever have: the machine's, or less in a container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *memory_limits()])
