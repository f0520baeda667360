"""Which value every parameter has for one tensor, by mergekit's rules of precedence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from merge_ops.arrangement.groups import Group, Place
from merge_ops.checkpoints.names.depth import Position
from merge_ops.errors import Fault, RecipeError
from merge_ops.methods.parameters import REQUIRED, Parameter, Value, evaluate
from merge_ops.recipes.recipe import Coefficient, Parameters, Recipe


class ParameterResolver:
    """A resolver finds the parameters of every tensor by mergekit's rules of precedence.

    The input's own parameters come first, then those of the slice, of the module and of the recipe.
    A value of the sweep stands at the recipe's level. Faults are collected; `raise_faults` raises
    them all at once.
    """

    def __init__(self, recipe: Recipe, points: Sequence[Coefficient]) -> None:
        self._recipe = recipe
        self._tops = [{**recipe.parameters, **point.values} for point in points]
        self._specs = recipe.method.parameter_specs
        self._shares = dict(zip(map(id, self._tops), _shares(recipe, points), strict=True))
        self._missing: dict[str, str] = {}
        self._known: dict[tuple[Any, ...], Any] = {}
        self._of_group: dict[int, tuple[Group, tuple[Any, ...]]] = {}
        self._everywhere: dict[tuple[int, int], tuple[Group, Any]] = {}

    def resolve(self, place: Place, group: Group, position: Position | None) -> tuple[Any, ...]:
        """Return one parameter object for each coefficient; equal ones are one object.

        A filter in an input's parameters matches the tensor's name in that input. A filter in
        shared parameters matches its name in the output. `position` is for methods that ask for it.
        """
        if id(group) in self._of_group:
            found = self._of_group[id(group)][1]
        else:
            found = tuple(self._one(place, group, top) for top in self._tops)
            if all((id(group), id(top)) in self._everywhere for top in self._tops):
                self._of_group[id(group)] = group, found
        at_position = self._recipe.method.at_position
        if at_position is None or position is None or self._missing:
            return found
        return tuple(at_position(each, position) for each in found)

    def _one(self, place: Place, group: Group, top: Parameters) -> Any:
        key = (id(group), id(top))
        if key not in self._everywhere:
            found = self._at_one_place(place, group, top)
            if not _same_everywhere(group, top):
                return found
            self._everywhere[key] = (group, found)  # the group lives, so its id is its own
        return self._everywhere[key][1]

    def _at_one_place(self, place: Place, group: Group, top: Parameters) -> Any:
        levels = (*group.levels, top)
        values: list[Any] = []
        for spec in self._specs.values():
            if spec.per_input:
                values.append(
                    tuple(
                        self._value(spec, name, place.depth, (own, *levels), checkpoint.name)
                        for own, name, checkpoint in zip(
                            self._shares[id(top)] or group.own,
                            place.names,
                            group.inputs,
                            strict=True,
                        )
                    )
                )
            else:
                values.append(self._value(spec, place.name, place.depth, levels, ""))
        key = (group.on_task_vectors, *values)
        if key not in self._known:
            self._known[key] = self._recipe.method.parameters(*values)
            self._check_together(place.name, self._known[key])
        return self._known[key]

    def _value(
        self,
        spec: Parameter,
        tensor: str,
        depth: float,
        levels: Sequence[Mapping[str, Any]],
        model: str,
    ) -> Value:
        for level in levels:
            if spec.name in level:
                found = evaluate(spec, level[spec.name], tensor, depth)
                if found is not None:
                    return found
        if spec.default is not REQUIRED:
            return cast(Value, spec.default)
        of = f" of model '{model}'" if model else ""
        where = f"parameters.{spec.name}"
        self._missing.setdefault(
            where, f"has no value{of} for tensor '{tensor}'; {self._recipe.method.name} requires it"
        )
        return 0.0

    def _check_together(self, tensor: str, parameters: Any) -> None:
        """What the method itself says about parameters that are sound each for itself."""
        check = self._recipe.method.check
        fault = check(parameters) if check and not self._missing else None
        if fault is not None:
            self._missing[fault.where] = f"{fault.problem} (at tensor '{tensor}')"

    def raise_faults(self) -> None:
        """Raise RecipeError with everything that could not be resolved."""
        if self._missing:
            faults = [Fault(where, what) for where, what in self._missing.items()]
            raise RecipeError(self._recipe.subject, faults)


def _shares(recipe: Recipe, points: Sequence[Coefficient]) -> Iterator[Sequence[Parameters] | None]:
    """The parameters of each input at each point of a window; None for other recipes."""
    for point in points:
        if recipe.window is None:
            yield None
            continue
        shares = recipe.window.shares(point.values)
        yield [{"weight": shares.get(each.model, 0.0)} for each in recipe.models]


def _same_everywhere(group: Group, top: Parameters) -> bool:
    """Whether no parameter is a gradient or a filter, which differ from tensor to tensor."""
    tables = (*group.own, *group.levels, top)
    return not any(isinstance(value, list | dict) for each in tables for value in each.values())
