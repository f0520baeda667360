"""What a plan does for each tensor of its output: merge it, copy it, or reuse an earlier result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from merge_ops.checkpoints.checkpoint import Stored, TensorSource
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.methods.registry import Span


@dataclass(frozen=True)
class Merge:
    """A tensor that the method makes of one input for each expert.

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
        """Itself."""
        return self

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """Base (where there is one) and inputs."""
        return self.inputs if self.base is None else (self.base, *self.inputs)

    def with_inputs(self, group: range | None) -> Merge:
        """The step with some of its inputs only, or with all."""
        if group is None or len(group) == len(self.inputs):
            return self
        return dataclasses.replace(self, inputs=tuple(self.inputs[number] for number in group))

    @cached_property
    def nbytes(self) -> int:
        """Bytes read to have all sources once."""
        return sum(source.nbytes for source in self.sources)


@dataclass(frozen=True)
class Copy:
    """A tensor that comes out as `source` is, equal for every coefficient."""

    action: ClassVar[Literal["copy"]] = "copy"
    span: ClassVar[Span] = "element"
    parameters: ClassVar[tuple[Any, ...]] = ()

    output: OutputTensor
    source: TensorSource

    @property
    def planned(self) -> Copy:
        """Itself."""
        return self

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """The one source."""
        return (self.source,)

    @property
    def nbytes(self) -> int:
        """Bytes of the source."""
        return self.source.nbytes


@dataclass(frozen=True)
class Reuse:
    """A tensor whose bytes lie in checkpoints that were made before: `made`, one a coefficient.

    `planned` is the step that would give the same bytes.
    """

    action: ClassVar[Literal["reuse"]] = "reuse"
    span: ClassVar[Span] = "element"
    parameters: ClassVar[tuple[Any, ...]] = ()

    planned: Merge | Copy
    made: tuple[Stored, ...]

    @property
    def output(self) -> OutputTensor:
        """The tensor that the step writes."""
        return self.planned.output

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """The earlier tensors, one for each coefficient."""
        return self.made

    @property
    def nbytes(self) -> int:
        """Bytes of the earlier tensors."""
        return sum(stored.nbytes for stored in self.made)


Step = Merge | Copy | Reuse
