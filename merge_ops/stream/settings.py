"""How to run a merge: threads, device and memory."""

from __future__ import annotations

from dataclasses import dataclass

from merge_ops.errors import Fault, SettingsError
from merge_ops.kernels.cores import usable_cores
from merge_ops.measures.measure import LEAF

MIB = 1 << 20
SMALLEST_BLOCK, USUAL_BLOCK = LEAF, 512 * 1024
USUAL_ROOM = 72 * MIB  # of a thread's buffers: the usual block of nine inputs and one coefficient


@dataclass(frozen=True)
class StreamSettings:
    """How to run a merge; none of it changes a bit of the result on one kind of device.

    `memory` bounds the buffers in bytes; `block` fixes the elements of a block (a multiple of
    65,536), otherwise it follows from `memory`, `threads` and the number of inputs: with many of
    them blocks are shorter, so that buffers take no more than with a few. Methods that
    see tensors whole hold as many at a time as `memory` has room for, and a larger one alone: they
    take `memory` or what the largest tensor takes, and SettingsError is raised before any work
    where the machine does not have that. More memory lets them use more threads.
    """

    threads: int = 0
    device: str = "auto"
    memory: int = 512 * MIB
    block: int | None = None

    def thread_count(self) -> int:
        """The threads asked for, or one for each core this process may use."""
        return self.threads or usable_cores()

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
        while block * 2 <= min(room, USUAL_BLOCK, USUAL_ROOM // each):
            block *= 2
        return block
