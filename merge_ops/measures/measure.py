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

import numpy as np

from merge_ops.kernels import loops as kernels
from merge_ops.kernels.values import count_of, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SAMPLE_RUNS = 128  # of a tensor's sample, at most
SAMPLE_ROOM = 256 << 20  # bytes of a sample, all inputs together
LEAF = 65_536
LANES = 64


@dataclass(frozen=True)
class TensorJob:
    """What a measure may know of the tensor at hand: its name, shape, inputs and the recipe's seed.

    `inputs` are the names of the experts (task-vector methods) or checkpoints, in order. Where a
    method measures the whole model, that is one flat tensor with the elements of all.
    """

    tensor: str
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    seed: int

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
    inputs: Sequence[Tensor]

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

    def look(self, inputs: Sequence[Tensor]) -> None:  # noqa: B027, most need not look
        """See a sample of the inputs, evenly spread over the tensor."""

    @abstractmethod
    def observe(self, block: Block) -> Any:
        """What this block contributes; must not change the measure."""

    @abstractmethod
    def absorb(self, observations: Sequence[Any]) -> None:
        """Take in one round's observations, in block order; clear `wanted` when all is known."""

    @abstractmethod
    def at(self, block: Block, coefficient: int) -> Any:
        """The `statistics` argument of the method for this block and coefficient."""


class ModelMeasure(Measure):
    """One that may be of a whole model: it goes through a round once, and holds little of it."""

    @abstractmethod
    def absorb(self, observations: Iterable[Any]) -> None:
        """Take in one round's observations, in block order, as they are made."""


def measure_whole(measure: Measure, block: Block) -> None:
    """Measure a tensor that is one block: as many rounds as wanted, on the data at hand."""
    while measure.wanted:
        seen = block.of(measure.group)
        if measure.sample:
            wanted = sample_size(measure, len(seen.inputs))
            starts, length = sample_runs(block.count, wanted, SAMPLE_RUNS)
            flat = [each.reshape(-1) for each in seen.inputs]
            measure.look([joined([each[at : at + length] for at in starts]) for each in flat])
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


def leaf_sums(values: Tensor, other: Tensor | None = None) -> NDArray[np.float64]:
    """Σ |values|, or Σ values · other, over consecutive leaves in float64, shape (leaves,).

    Flat float32 tensors; products are float32. Element i of a leaf goes to lane i mod 64, then
    the upper half of the lanes is added to the lower until one is left: an order that vector
    registers, numpy and a GPU can all keep.
    """
    sums = kernels.leaf_sums(values, other, LEAF)
    if sums is not None:
        return sums
    import torch

    products = torch.as_tensor(values.abs() if other is None else values * other)
    found: list[float] = []
    for leaf in torch.split(products, LEAF):
        rows = leaf[: len(leaf) // LANES * LANES].double().view(-1, LANES)
        rest = leaf.new_zeros(LANES, dtype=torch.float64)
        rest[: len(leaf) % LANES] = leaf[rows.numel() :]
        lanes = np.add.reduce(rows.cpu().numpy(), axis=0) + rest.cpu().numpy()
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = lanes[:half] + lanes[half:]
        found.append(float(lanes[0]))
    return np.array(found, dtype=np.float64)


def total(parts: Iterable[NDArray[np.float64]], before: float = 0.0) -> float:
    """All leaves added in order, one by one, to what was summed before."""
    result = before
    for part in parts:
        for value in part.tolist():
            result += value
    return result
