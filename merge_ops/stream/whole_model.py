"""Measuring a whole model: its merged tensors, in file order, as if they were one flat tensor.

The measure is the one that a method has for a tensor; it need not know the difference. Nothing of
the model is held but what the measure keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

from merge_ops.errors import Fault, RecipeError
from merge_ops.measures.measure import Block, ModelMeasure, TensorJob

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic
    from merge_ops.plans.plan import Plan, PlannedTensor
    from merge_ops.recipes.recipe import Recipe


class WholeModel:
    """The measure over all merged tensors, for those coefficients that ask for it.

    `blocks` has, for every tensor of the plan, the number of its blocks.
    """

    def __init__(self, plan: Plan, blocks: Sequence[int], arithmetic: Arithmetic) -> None:
        self._places: dict[int, int] = {}
        self._first: dict[int, tuple[int, int]] = {}  # its first block and element, by tensor
        self.measure: ModelMeasure | None = None
        self.count = number = 0
        if all(step.action != "merge" for step in plan.steps):
            return
        for index, tensor in enumerate(plan.tensors):  # all, also those that are only copied now
            if tensor.action == "merge" and 0 not in tensor.output.shape:
                self._first[index] = number, self.count
                number += blocks[index]
                self.count += prod(tensor.output.shape)
        if not self._first or plan.method.measure is None:
            return
        first = plan.tensors[min(self._first)]
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

    def block(self, tensor: int, block: Block) -> Block:
        """A tensor's block as one of the model."""
        number, start = self._first[tensor]
        return Block(number + block.index, start + block.start, block.inputs)

    def at(self, tensor: int, block: Block, coefficient: int) -> Any:
        """What the method must know of the whole model for one of its blocks."""
        assert self.measure is not None
        return self.measure.at(self.block(tensor, block), self._places[coefficient])


def check_one_for_all(recipe: Recipe, tensors: Sequence[PlannedTensor]) -> None:
    """Raise RecipeError where a method measures the model and its parameters differ by tensor."""
    wide = recipe.method.model_wide
    merged = [each for each in tensors if each.action == "merge"]
    if wide is None:
        return
    faults: list[Fault] = []
    for coefficient in range(len(merged[0].parameters) if merged else 0):
        if not any(wide.asked(each.parameters[coefficient]) for each in merged):
            continue
        first = merged[0]
        models = [source.model for source in first.inputs]
        if any([source.model for source in each.inputs] != models for each in merged):
            problem = "is over the whole model, and the slices merge different experts; with"
            faults.append(Fault(wide.setting, f"{problem} it all must list the same, in order"))
        for name in wide.same:
            wanted = getattr(first.parameters[coefficient], name)
            for each in merged:
                given = getattr(each.parameters[coefficient], name)
                if given != wanted:
                    problem = (
                        f"is {_shown(wanted)} for '{first.output.name}' and {_shown(given)} for"
                        f" '{each.output.name}'; with `{wide.setting}` it must be one for all"
                        " tensors: take out its filters and gradients"
                    )
                    faults.append(Fault(f"parameters.{name}", problem))
                    break
    if faults:
        raise RecipeError(recipe.subject, sorted(set(faults)))


def _shown(value: Any) -> str:
    values = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
    return ", ".join(map(str, values))
