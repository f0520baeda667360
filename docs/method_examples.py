"""A small example of every merge method: a recipe that plans, and the parameters it gives.

Works from the registry alone, so that a new method has its example without a change here.
"""

from __future__ import annotations

from typing import Any, cast

from merge_ops.checkpoints.names.depth import Position
from merge_ops.methods import MergeMethod
from merge_ops.methods.parameters import REQUIRED, Parameter

# Values that show what a method does where its default, such as keeping everything, does not.
TELLING: dict[str, Any] = {"weight": 0.5, "density": 0.5, "t": 0.4, "select_topk": 0.5}
TELLING_FOR: dict[str, dict[str, Any]] = {
    "nearswap": {"t": 0.0005},
    "expo": {"extrapolation": 0.5},
    "blockmerge": {"gradient_values": (0.2, 0.8)},
}
# Where methods that go by it find the toy: in the middle of a model.
MIDDLE = Position("toy.weight", 0.5, True, 5, 11, 4, 9)


def inputs_of(method: MergeMethod) -> int:
    """How many inputs the example merges."""
    return method.exactly or max(2, method.at_least)


def starts_at_base(method: MergeMethod) -> bool:
    """Whether the base model is itself one of the checkpoints that are merged."""
    return method.inputs == "checkpoints" and method.base == "required"


def names_base(method: MergeMethod) -> bool:
    """Whether the example names a base model."""
    return method.base == "required" or method.inputs == "task_vectors"


def input_names(method: MergeMethod) -> list[str]:
    """The inputs in order, by the names of the example."""
    experts = inputs_of(method) - starts_at_base(method)
    names = [f"expert-{number}" for number in range(1, experts + 1)]
    return ["base", *names] if starts_at_base(method) else names


def given_values(method: MergeMethod) -> dict[str, Any]:
    """The parameters that the example's recipe gives: those required, and telling ones."""
    telling = TELLING | TELLING_FOR.get(method.name, {})
    return {
        name: telling.get(name, spec.default if spec.default is not REQUIRED else middle(spec))
        for name, spec in method.parameter_specs.items()
        if name in telling or spec.default is REQUIRED
    }


def middle(spec: Parameter) -> Any:
    """A value inside the limits of a parameter that nobody has chosen one for."""
    if spec.choices:
        return spec.choices[0]
    if spec.kind is bool:
        return True
    low = spec.at_least if spec.at_least is not None else spec.above
    high = spec.at_most
    if low is None:
        low = 0.0 if high is None else high - 1
    if high is None:
        high = low + 1
    return int(low) + 1 if spec.kind is int else (low + high) / 2


def parameters(method: MergeMethod) -> Any:
    """The example's parameters as the method gets them, one value per input where it wants so."""
    given = given_values(method)
    values: list[Any] = []
    for name, spec in method.parameter_specs.items():
        value = given.get(name, spec.default)
        values.append((value,) * inputs_of(method) if spec.per_input else value)
    made = method.parameters(*values)
    return method.at_position(made, MIDDLE) if method.at_position else made


def recipe(method: MergeMethod) -> str:
    """The example as a recipe's YAML text."""
    lines = [f"merge_method: {method.name}"]
    if names_base(method):
        lines.append("base_model: base")
    lines.append("models:")
    lines += [f"  - model: {name}" for name in input_names(method) if name != "base"]
    given = given_values(method)
    if given:
        pairs = ", ".join(f"{name}: {as_yaml(value)}" for name, value in given.items())
        lines.append(f"parameters: {{{pairs}}}")
    return "\n".join(lines) + "\n"


def as_yaml(value: object) -> str:
    """A value the way one writes it in YAML."""
    if isinstance(value, tuple):
        return f"[{', '.join(as_yaml(each) for each in cast(tuple[object, ...], value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
