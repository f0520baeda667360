"""Measuring a whole model: its merged tensors, in file order, as if they were one flat tensor.

The measure is the one that a method has for a tensor; it need not know the difference. Nothing of
the model is held but what the measure keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

from merge_ops.measures.measure import Block, ModelMeasure, TensorJob
from merge_ops.plans.steps import Merge
from merge_ops.stream.ranges import ranges

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic
    from merge_ops.plans.plan import Plan


class WholeModel:
    """The measure over all merged tensors, for those coefficients that ask for it.

    `block` is how many elements a block has at most.
    """

    def __init__(self, plan: Plan, block: int, arithmetic: Arithmetic) -> None:
        self._places: dict[int, int] = {}
        self._first: dict[int, tuple[int, int]] = {}  # its first block and element, by tensor
        self.measure: ModelMeasure | None = None
        self._steps: dict[int, Merge] = {}
        self.count = number = 0
        if plan.method.model_wide is None or not any(
            isinstance(step, Merge) for step in plan.steps
        ):
            return
        for index, each in enumerate(plan.steps):
            step = each.planned  # all take part, also those that are only copied now
            if isinstance(step, Merge) and 0 not in step.output.shape:
                self._steps[index] = step
                self._first[index] = number, self.count
                number += len(ranges(step, block))
                self.count += prod(step.output.shape)
        if not self._first or plan.method.measure is None:
            return
        first = self._steps[min(self._first)]
        parameters = first.parameters
        asking = [c for c, each in enumerate(parameters) if plan.method.measures_model(each)]
        self._places = {coefficient: place for place, coefficient in enumerate(asking)}
        if asking:
            names = tuple(each.model for each in first.inputs)
            shape, seed = (self.count,), plan.recipe.seed
            job = TensorJob("the whole model", shape, names, seed, arithmetic)
            measure = plan.method.measure(job, [parameters[c] for c in asking])
            self.measure = cast(ModelMeasure, measure)

    def __contains__(self, coefficient: int) -> bool:
        return coefficient in self._places

    def tensors(self) -> Sequence[int]:
        """Indices of the tensors that take part, in order."""
        return list(self._first)

    def step(self, tensor: int) -> Merge:
        """How a tensor that takes part is merged, also where it is only copied now."""
        return self._steps[tensor]

    def block(self, tensor: int, block: Block) -> Block:
        """A tensor's block as one of the model."""
        number, start = self._first[tensor]
        return Block(number + block.index, start + block.start, block.inputs)

    def at(self, tensor: int, block: Block, coefficient: int) -> Any:
        """What the method must know of the whole model for one of its blocks."""
        assert self.measure is not None
        return self.measure.at(self.block(tensor, block), self._places[coefficient])
