"""Method parameters: what each may be, and mergekit's way of giving them a value per tensor.

A setting is a scalar, a gradient (a list, interpolated over the layers), or a list of
`{filter, value}` conditions of which the first whose filter is a substring of the tensor name wins.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.errors import Fault, did_you_mean

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
REQUIRED = object()


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method: its type, meaning, default and allowed values.

    `per_input` parameters have one value for each expert; the others one for the merge. Where
    `is_list`, the value is a list of such values (a scalar is a list of one), and so no gradient.
    """

    name: str
    kind: type
    meaning: str
    default: object = REQUIRED
    per_input: bool = False
    is_list: bool = False
    above: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    aliases: Mapping[object, str] = dataclasses.field(default_factory=dict[object, str])

    def allowed(self) -> str:
        """What a value must be: `above 0 and at most 1 (the share of entries kept)`."""
        if self.kind is bool:
            return f"true or false ({self.meaning})"
        if self.choices:
            return f"one of {', '.join(self.choices)} ({self.meaning})"
        bounds = [
            f"{word} {limit:g}"
            for word, limit in (
                ("above", self.above),
                ("at least", self.at_least),
                ("at most", self.at_most),
            )
            if limit is not None
        ]
        of = "a whole number" if self.kind is int else "a finite number"
        if self.kind is int and bounds:
            bounds.insert(0, of)
        return f"{' and '.join(bounds) or of} ({self.meaning})"

    def check(self, value: object) -> Scalar:
        """`value` as this parameter's type. Raises ValueError saying what is allowed."""
        if self.choices:
            known = value if value in self.choices or not self.aliases else true_or_false(value)
            named = self.aliases.get(known, known) if isinstance(known, bool | str) else known
            if named in self.choices:
                return cast(str, named)
        elif self.kind is bool:
            known = true_or_false(value)
            if isinstance(known, bool):
                return known
        else:
            number = _number(value)
            if number is not None and self._within(number):
                if self.kind is not int:
                    return number
                if number.is_integer():
                    return int(number)
        raise ValueError(f"is {value!r}; it must be {self.allowed()}")

    def _within(self, number: float) -> bool:
        return (
            math.isfinite(number)
            and (self.above is None or number > self.above)
            and (self.at_least is None or number >= self.at_least)
            and (self.at_most is None or number <= self.at_most)
        )


def _number(value: object) -> float | None:
    """A float from a YAML number; also from text such as `1e-3`, which YAML 1.1 reads as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


TRUE = ("true", "yes", "on", "y", "t", "1")
FALSE = ("false", "no", "off", "n", "f", "0")


def true_or_false(value: object) -> object:
    """A bool for what mergekit takes as one, and prints into its cards: `1.0`, `0`, `"yes"`.

    These are the numbers 1 and 0, and true, yes, on, y, t, 1 and their opposites as text in any
    case. Any other value is returned as it is.
    """
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in (*TRUE, *FALSE):
        return value.lower() in TRUE
    return value


def shared(name: str, kind: type, default: object, meaning: str, **limits: Any) -> Any:
    """A dataclass field for a parameter with one value for the whole merge."""
    spec = Parameter(name, kind, meaning, default, **limits)
    return dataclasses.field(metadata={"parameter": spec})


def per_input(name: str, default: object, meaning: str, **limits: Any) -> Any:
    """A dataclass field (`tuple[float, ...]`) for a parameter with one value for each input."""
    spec = Parameter(name, float, meaning, default, per_input=True, **limits)
    return dataclasses.field(metadata={"parameter": spec})


def parameters_of(kind: type) -> dict[str, Parameter]:
    """The parameters that a method's dataclass declares, by their name in a recipe."""
    specs = [field.metadata["parameter"] for field in dataclasses.fields(kind)]
    return {spec.name: spec for spec in specs}


def setting_faults(where: str, parameter: Parameter, setting: object) -> Iterator[Fault]:
    """Everything wrong with a setting: each scalar of each gradient of each condition."""
    if isinstance(setting, dict):
        yield from _condition_faults(where, parameter, cast(object, setting))
        return
    if not isinstance(setting, list):
        yield from _scalar_faults(where, parameter, setting)
        return
    items = cast(list[object], setting)
    if not items:
        yield Fault(where, "is an empty list; give a value")
    if not any(isinstance(item, dict) for item in items):
        for position, item in enumerate(items):
            yield from _scalar_faults(f"{where}[{position}]", parameter, item)
        return
    for position, item in enumerate(items):
        yield from _condition_faults(f"{where}[{position}]", parameter, item)


def is_gradient(setting: object) -> bool:
    """Whether a setting, or a condition in it, is a list of values to run over the layers."""
    if isinstance(setting, dict):
        return is_gradient(cast(dict[str, object], setting).get("value"))
    if not isinstance(setting, list):
        return False
    items = cast(list[object], setting)
    if any(isinstance(item, dict) for item in items):
        return any(is_gradient(item) for item in items)
    return len(items) > 1


def _scalar_faults(where: str, parameter: Parameter, value: object) -> Iterator[Fault]:
    try:
        parameter.check(value)
    except ValueError as error:
        yield Fault(where, str(error))


def _condition_faults(where: str, parameter: Parameter, item: object) -> Iterator[Fault]:
    if not isinstance(item, dict):
        yield Fault(where, f"is {item!r}; where filters are used, each entry is {{filter, value}}")
        return
    condition = cast(dict[str, object], item)
    for key in condition:
        if key not in ("filter", "value"):
            hint = did_you_mean(key, ("filter", "value"))
            yield Fault(f"{where}.{key}", f"is no key of a condition (filter, value).{hint}")
    if not isinstance(condition.get("filter"), str | None):
        yield Fault(f"{where}.filter", "must be a part of a tensor name, '*' or left out")
    if "value" not in condition:
        yield Fault(where, "has no 'value'")
    elif isinstance(condition["value"], dict):
        yield Fault(f"{where}.value", "must be a value or a gradient, not another condition")
    else:
        yield from setting_faults(f"{where}.value", parameter, condition["value"])


def evaluate(parameter: Parameter, setting: object, tensor: str, t: float) -> Value | None:
    """A setting's value for one tensor at depth `t` in [0, 1]; None where no filter matches.

    A numeric gradient v_0..v_m is piecewise linear in t; of other lists the entry int(t·m) is
    taken (mergekit 0.1.5, `evaluate_setting`).
    """
    if isinstance(setting, dict):
        return evaluate(parameter, [cast(object, setting)], tensor, t)
    if not isinstance(setting, list):
        value = parameter.check(setting)
        return (value,) if parameter.is_list else value
    items = cast(list[Any], setting)
    if any(isinstance(item, dict) for item in items):
        for condition in items:
            wanted = condition.get("filter")
            if wanted in (None, "*") or wanted in tensor:
                return evaluate(parameter, condition["value"], tensor, t)
        return None
    values = [parameter.check(item) for item in items]
    if parameter.is_list:
        return tuple(values)
    if parameter.kind is not float:
        return values[int(t * (len(values) - 1))]
    numbers = cast(Sequence[float], values)
    position = t * (len(numbers) - 1)
    low = int(position)
    high = min(low + 1, len(numbers) - 1)
    return (1 - (position - low)) * numbers[low] + (position - low) * numbers[high]
