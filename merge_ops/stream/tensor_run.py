"""One tensor on its way through the stream: its blocks, and what is being measured of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Future
from math import prod
from typing import TYPE_CHECKING, Any

from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.plans.plan import Plan
from merge_ops.plans.steps import Merge, Step
from merge_ops.stream.ranges import ranges
from merge_ops.stream.whole_model import WholeModel

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values


class TensorRun:
    """One tensor on its way through the stream: its blocks and what is being measured of it."""

    __slots__ = (
        "_model", "_places", "empty", "index", "measure", "observed", "ranges", "round", "tensor",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        tensor: Step,
        index: int,
        block: int,
        model: WholeModel,
        arithmetic: Arithmetic,
    ) -> None:
        self.tensor = tensor
        self.index = index
        self.empty = 0 in tensor.output.shape
        self.ranges = ranges(tensor, block)
        self.measure: Measure | None = None
        self.round: list[Future[Any]] = []
        self.observed = model.measure is not None  # all of it was read before, and so checked
        self._model = model
        if plan.method.measure is None or not isinstance(tensor, Merge):
            return
        own = [c for c in range(len(tensor.parameters)) if c not in model]
        self._places = {coefficient: place for place, coefficient in enumerate(own)}
        if own:
            names = tuple(each.model for each in tensor.inputs)
            output, seed = tensor.output, plan.recipe.seed
            job = TensorJob(output.name, output.shape, names, seed, arithmetic)
            self.measure = plan.method.measure(job, [tensor.parameters[c] for c in own])

    def of(self, tensor: Merge) -> TensorRun:
        """The run of another tensor that is one block, for a method that measures nothing."""
        run = copy.copy(self)
        run.tensor, run.ranges = tensor, [(0, prod(tensor.output.shape))]
        return run

    @property
    def merge(self) -> Merge:
        """The tensor's step, of which it is known that it merges."""
        assert isinstance(self.tensor, Merge)
        return self.tensor

    def known(self, block: Block, coefficient: int) -> Any:
        """What the method must know of this tensor, or of the model, for one block."""
        if coefficient in self._model:
            return self._model.at(self.index, block, coefficient)
        return self.measure and self.measure.at(block, self._places[coefficient])

    def block(self, number: int, start: int, inputs: Sequence[Values]) -> Block:
        """A block in the shape that the method's span asks for."""
        shape = self.tensor.output.shape
        if self.tensor.span == "row":
            inputs = [each.reshape(-1, shape[-1] if shape else 1) for each in inputs]
        elif self.tensor.span == "tensor":
            inputs = [each.reshape(shape) for each in inputs]
        return Block(number, start, inputs)
