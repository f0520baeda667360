"""What a method must know of a whole tensor before it sees a block, measured block by block.

Sums are taken over fixed leaves of 65,536 elements and added in order in float64, so that a
result does not depend on block size, thread count or order of arrival.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from merge_ops.kernels.arithmetic import Arithmetic, count_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Values

SAMPLE_RUNS = 128  # of a tensor's sample, at most: each is a read of its own
SAMPLE_ROOM = 256 << 20  # bytes of a sample, all inputs together: half of a merge's usual memory
LEAF = 65_536  # elements of a leaf, of which every block is a multiple


@dataclass(frozen=True)
class TensorJob:
    """What a measure may know of the tensor at hand, and what it computes with.

    `inputs` are the names of the experts (task-vector methods) or checkpoints, in order. Where a
    method measures the whole model, that is one flat tensor with the elements of all. `seed` is the
    recipe's.
    """

    tensor: str
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    seed: int
    arithmetic: Arithmetic

    @property
    def count(self) -> int:
        """Number of elements, at least one."""
        return max(1, prod(self.shape))


@dataclass(frozen=True)
class Block:
    """A run of a tensor's elements, [start, start + n): float32 inputs of n elements each.

    Their shape follows from the method's span: flat (n,) for elements, (rows, row length) for rows,
    the tensor's own shape for the whole tensor.
    """

    index: int
    start: int
    inputs: Sequence[Values]

    @property
    def count(self) -> int:
        """Number of elements."""
        return count_of(self.inputs[0])

    def of(self, group: range | None) -> Block:
        """The block with the inputs of a group only."""
        if group is None:
            return self
        return Block(self.index, self.start, [self.inputs[number] for number in group])


@dataclass(frozen=True)
class ModelWide:
    """When a method's measure goes over the whole model, all tensors one behind the other.

    `asked` says so of one tensor's parameters, `setting` is how a recipe asks for it; the
    parameters `same` (attributes of the parameter class) then are one for all tensors.
    """

    setting: str
    asked: Callable[[Any], bool]
    same: tuple[str, ...]


class Measure(ABC):
    """Measures one tensor for all coefficients of a sweep at once.

    While `wanted`, the stream calls `observe` on every block (in threads, in any order) and then
    `absorb` with all observations in block order. Afterwards `at` gives the method what it needs
    for one block and one coefficient. `sample` is the number of elements it would like to look at
    before this round (0: none); the stream hands them to `look`, or fewer. `group` are the inputs
    that this round is about, by their numbers (None: all): `look` and `observe` get just these.
    """

    wanted: bool = True
    sample: int = 0
    group: range | None = None

    def look(self, inputs: Sequence[Values]) -> None:  # noqa: B027, most need not look
        """The measure sees a sample of each input, (n,), evenly spread over the tensor."""

    @abstractmethod
    def observe(self, block: Block) -> Any:
        """What this block contributes; must not change the measure."""

    @abstractmethod
    def absorb(self, observations: Sequence[Any]) -> None:
        """Take in one round's observations, in block order; clear `wanted` when all is known."""

    @abstractmethod
    def at(self, block: Block, coefficient: int) -> Any:
        """What the method sees of this block and coefficient beside its inputs."""


class ModelMeasure(Measure):
    """One that may be of a whole model: it goes through a round once, and holds little of it."""

    @abstractmethod
    def absorb(self, observations: Iterable[Any]) -> None:
        """Take in one round's observations, in block order, as they are made."""


def measure_whole(measure: Measure, block: Block, arithmetic: Arithmetic) -> None:
    """Measure a tensor that is one block: as many rounds as wanted, on the data at hand."""
    while measure.wanted:
        seen = block.of(measure.group)
        if measure.sample:
            wanted = sample_size(measure, len(seen.inputs))
            starts, length = sample_runs(block.count, wanted, SAMPLE_RUNS)
            flat = [values.reshape(-1) for values in seen.inputs]
            runs = ([values[at : at + length] for at in starts] for values in flat)
            measure.look([arithmetic.joined(parts) for parts in runs])
            measure.sample = 0
        measure.absorb([measure.observe(seen)])


def sample_size(measure: Measure, inputs: int) -> int:
    """Elements of a sample of so many inputs: what is wanted, or what there is room for."""
    return min(measure.sample, SAMPLE_ROOM // (4 * inputs))


def sample_runs(count: int, wanted: int, runs: int) -> tuple[list[int], int]:
    """Where the runs of a sample begin, evenly spread over `count` elements, and their length.

    About `wanted` elements in all. They do not depend on the block: so neither does what follows
    from a sample.
    """
    length = min(max(64, wanted // runs), LEAF, count)
    runs = max(1, min(wanted // length, count // length))
    return [(count - length) * number // max(1, runs - 1) for number in range(runs)], length


def total(parts: Iterable[NDArray[np.float64]], before: float = 0.0) -> float:
    """The total is all leaves, added in order, one by one, to what was summed before.

    Each of the parts has shape (leaves,); the result is one number.
    """
    result = before
    for part in parts:
        for value in part.tolist():
            result += value
    return result
