"""A plan's parameters in words: one line for tensors that are merged alike.

A gradient over layers is one line too: `weight 0 → 1 over 32 layers of model.layers`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.plans.steps import Merge, Step

MOST_POINTS = 12  # of a course over the layers, in one line

Values = tuple[tuple[str, str, Any], ...]
"""Parameter, input (or nothing), value."""


@dataclass(frozen=True)
class ParameterRow:
    """A parameter row tells of all tensors that are merged alike.

    `words` are the parameters, and the layers that they run over; `names` are the tensors.
    """

    words: str
    names: tuple[str, ...]


def parameter_rows(steps: Sequence[Step]) -> tuple[ParameterRow, ...]:
    """Return a row for tensors that are merged alike, in file order, for the first coefficient.

    The tensors of a stack that have one name in the layer are merged alike; their values over the
    layers make one row, and so do several parts with the same values.
    """
    tracks: dict[tuple[str, str], dict[int, Values]] = {}
    names: dict[tuple[str, str], list[str]] = {}
    told: dict[tuple[int, tuple[str, ...]], Values] = {}
    for step in steps:
        name = step.output.name
        stack, layer = layer_of(name) or ("", -1)
        part = name[len(f"{stack}.{layer}.") :] if stack else name
        tracks.setdefault((stack, part), {})[layer] = _values_once(step, told)
        names.setdefault((stack, part), []).append(name)
    alike: dict[tuple[str, tuple[int, ...], tuple[Values, ...]], list[str]] = {}
    for (stack, part), track in tracks.items():
        layers = tuple(sorted(track))
        values = tuple(track[layer] for layer in layers)
        steady = len(set(values)) == 1
        same = ("", (), values[:1]) if steady else (stack, layers, values)
        alike.setdefault(same, []).extend(names[stack, part])
    rows: list[ParameterRow] = []
    for (stack, layers, values), found in alike.items():
        over = f" over {len(layers)} layers of {stack}"
        rows.append(ParameterRow(_words(values, over), tuple(found)))
    return tuple(rows)


def _values_once(step: Step, told: dict[tuple[int, tuple[str, ...]], Values]) -> Values:
    """The parameters of one tensor; equal ones are one object in a plan, and told once."""
    planned = step.planned
    if not isinstance(planned, Merge):
        return _values(step)
    key = (id(planned.parameters[0]), tuple([source.model for source in planned.inputs]))
    if key not in told:
        told[key] = _values(step)
    return told[key]


def _values(step: Step) -> Values:
    """The parameters of one tensor: what each is called, of which input, and its value."""
    planned = step.planned
    if not isinstance(planned, Merge):
        return ((f"copied from {planned.source.model}", "", ""),)
    found: list[tuple[str, str, Any]] = []
    for field in dataclasses.fields(planned.parameters[0]):
        spec = field.metadata.get("parameter")
        name = spec.name if spec is not None else field.name
        value: Any = getattr(planned.parameters[0], field.name)
        if isinstance(value, tuple) and spec is not None and spec.per_input:
            inputs = (source.model for source in planned.inputs)
            values = cast("tuple[Any, ...]", value)
            found += [(name, model, each) for model, each in zip(inputs, values, strict=False)]
        else:
            found.append((name, "", cast(Any, value)))
    return tuple(found) or (("no parameters", "", ""),)


def _words(values: Sequence[Values], over: str) -> str:
    """`weight 0.5, density 0.3`; where it varies `weight 0 → 1 over 32 layers of h`."""
    runs: dict[str, dict[str, list[str]]] = {}
    for at, (name, model, _) in enumerate(values[0]):
        run = _points([each[at][2] for each in values if len(each) > at])
        runs.setdefault(name, {})[model] = run
    words: list[str] = []
    for name, of_models in runs.items():
        several = len({tuple(run) for run in of_models.values()}) > 1
        for model, run in of_models.items() if several else list(of_models.items())[:1]:
            label = f"{name} of {model}" if several else name
            words.append(f"{label} {' → '.join(run)}".strip() + (over if len(run) > 1 else ""))
    return ", ".join(words)


def _points(run: Sequence[Any]) -> list[str]:
    """The first and the last value of a run, and those between where its course changes."""
    kept = [
        run[at]
        for at in range(len(run))
        if at in (0, len(run) - 1) or not _goes_on(*run[at - 1 : at + 2])
    ]
    points = [text for text, _ in itertools.groupby(map(_text, kept))]
    if len(points) > MOST_POINTS:
        points = [*points[: MOST_POINTS - 1], "…", points[-1]]
    return points


def _goes_on(before: Any, value: Any, after: Any) -> bool:
    """Whether a value lies on the way from the one before it to the one behind it."""
    numbers = (before, value, after)
    if not all(isinstance(each, float) for each in numbers):
        return before == value == after
    rise, further = value - before, after - value
    return abs(rise - further) <= 1e-9 * max(1.0, *map(abs, numbers))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_text, cast("Sequence[Any]", value))) + "]"
    return "none" if value is None else str(value)
