"""Which value every parameter has for one tensor, by mergekit's rules of precedence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from merge_ops.errors import Fault, RecipeError
from merge_ops.parameters import REQUIRED, Parameter, Scalar, evaluate
from merge_ops.recipe import Coefficient, Recipe


class ParameterResolver:
    """Parameters of every tensor, by mergekit's precedence: the model's own, then the top level.

    A sweep's value stands at the top level. What cannot be resolved is collected and raised once.
    """

    def __init__(
        self, recipe: Recipe, inputs: Sequence[str], points: Sequence[Coefficient]
    ) -> None:
        own = {entry.model: entry.parameters for entry in recipe.models}
        self._recipe = recipe
        self._tables = [own.get(name, {}) for name in inputs]
        self._names = list(inputs)
        self._tops = [{**recipe.parameters, **point.values} for point in points]
        self._specs = recipe.method.parameter_specs
        self._missing: dict[str, str] = {}
        self._known: dict[tuple[Any, ...], Any] = {}

    def resolve(self, tensor: str, depth: float) -> tuple[Any, ...]:
        """One parameter object for each coefficient; equal ones are shared."""
        return tuple(self._one(tensor, depth, top) for top in self._tops)

    def _one(self, tensor: str, depth: float, top: Mapping[str, Any]) -> Any:
        values: list[Any] = []
        for spec in self._specs.values():
            if spec.per_input:
                values.append(
                    tuple(
                        self._value(spec, tensor, depth, (table, top), name)
                        for table, name in zip(self._tables, self._names, strict=True)
                    )
                )
            else:
                values.append(self._value(spec, tensor, depth, (top,), ""))
        key = tuple(values)
        if key not in self._known:
            self._known[key] = self._recipe.method.parameters(*values)
            self._check_sum(spec_values=dict(zip(self._specs, values, strict=True)))
            self._check_together(tensor, self._known[key])
        return self._known[key]

    def _value(
        self,
        spec: Parameter,
        tensor: str,
        depth: float,
        levels: Sequence[Mapping[str, Any]],
        model: str,
    ) -> Scalar:
        for level in levels:
            if spec.name in level:
                found = evaluate(spec, level[spec.name], tensor, depth)
                if found is not None:
                    return found
        if spec.default is not REQUIRED:
            return cast(Scalar, spec.default)
        of = f" of model '{model}'" if model else ""
        where = f"parameters.{spec.name}"
        self._missing.setdefault(
            where, f"has no value{of} for tensor '{tensor}'; {self._recipe.method.name} requires it"
        )
        return 0.0

    def _check_sum(self, spec_values: Mapping[str, Any]) -> None:
        """A weighted average of whole checkpoints has no meaning where the weights sum to zero."""
        weights = spec_values.get("weight")
        if (
            not self._recipe.on_task_vectors
            and weights
            and spec_values.get("normalize")
            and sum(weights) == 0
            and not self._missing
        ):
            self._missing["parameters.weight"] = (
                f"sums to zero over the models ({list(weights)}), and `normalize` divides by that"
            )

    def _check_together(self, tensor: str, parameters: Any) -> None:
        check = self._recipe.method.check
        fault = check(parameters) if check and not self._missing else None
        if fault is not None:
            self._missing[fault.where] = f"{fault.problem} (at tensor '{tensor}')"

    def raise_faults(self) -> None:
        """Raise RecipeError with everything that could not be resolved."""
        if self._missing:
            faults = [Fault(where, what) for where, what in self._missing.items()]
            raise RecipeError(self._recipe.subject, faults)
