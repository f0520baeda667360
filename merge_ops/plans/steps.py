"""What a plan does for each tensor of its output: merge it, copy it, or reuse an earlier result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from merge_ops.checkpoints.checkpoint import Stored, TensorSource
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.methods.registry import Span


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge step makes one tensor with the method, from one input for each expert.

    `base` is the base model's tensor for methods on task vectors, else None. `parameters` holds,
    for each coefficient, an instance of the method's parameter class. `span` is what the method
    must see at once.
    """

    action: ClassVar[Literal["merge"]] = "merge"

    output: OutputTensor
    base: TensorSource | None
    inputs: tuple[TensorSource, ...]
    parameters: tuple[Any, ...]
    span: Span = "element"

    @property
    def planned(self) -> Merge:
        """Return this step."""
        return self

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """Return the base (where there is one) and the inputs."""
        return self.inputs if self.base is None else (self.base, *self.inputs)

    def with_inputs(self, group: range | None) -> Merge:
        """Return the step with the inputs of `group` only, or with all where it is None."""
        if group is None or len(group) == len(self.inputs):
            return self
        return dataclasses.replace(self, inputs=tuple(self.inputs[number] for number in group))

    @property
    def nbytes(self) -> int:
        """Return how many bytes are read to have all sources once."""
        total = 0 if self.base is None else self.base.nbytes
        for source in self.inputs:
            total += source.nbytes
        return total


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy step writes a tensor as its `source` is, the same for every coefficient."""

    action: ClassVar[Literal["copy"]] = "copy"
    span: ClassVar[Span] = "element"
    parameters: ClassVar[tuple[Any, ...]] = ()

    output: OutputTensor
    source: TensorSource

    @property
    def planned(self) -> Copy:
        """Return this step."""
        return self

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """Return the one source."""
        return (self.source,)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the source."""
        return self.source.nbytes


@dataclass(frozen=True, slots=True)
class Reuse:
    """A reuse step copies a tensor from checkpoints that were made before.

    `made` holds one earlier tensor for each coefficient. `planned` is the step that would give the
    same bytes.
    """

    action: ClassVar[Literal["reuse"]] = "reuse"
    span: ClassVar[Span] = "element"
    parameters: ClassVar[tuple[Any, ...]] = ()

    planned: Merge | Copy
    made: tuple[Stored, ...]

    @property
    def output(self) -> OutputTensor:
        """Return the tensor that the step writes."""
        return self.planned.output

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """Return the earlier tensors, one for each coefficient."""
        return self.made

    @property
    def nbytes(self) -> int:
        """Return the bytes of the earlier tensors."""
        return sum(stored.nbytes for stored in self.made)


Step = Merge | Copy | Reuse
