"""A plan's parameters in words: one line for tensors that are merged alike, gradients over layers
as one line too.

What strangers named (tensors, models) is shown as it is: never as markup, and what cannot be
printed as its escape.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from merge_ops.checkpoints.depth import layer_of
from merge_ops.plans import Plan
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


def shown(text: object) -> Text:
    """Return a name as plain text for the terminal."""
    escaped = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in str(text)
    )
    return Text(escaped)


def parameter_table(plan: Plan) -> Table:
    """Return the table of a plan's parameters, for the first coefficient."""
    table = Table()
    table.add_column("parameters", overflow="fold")
    table.add_column("tensors", justify="right")
    table.add_column("for example", overflow="fold")
    for row in parameter_rows(plan):
        cells = (row.words, str(len(row.names)), row.names[0])
        table.add_row(*map(shown, cells))
    return table


def parameter_rows(plan: Plan) -> list[ParameterRow]:
    """Return a row for tensors that are merged alike, in file order.

    The tensors of a stack that have one name in the layer are merged alike; their values over the
    layers make one row, and so do several parts with the same values.
    """
    tracks: dict[tuple[str, str], dict[int, Values]] = {}
    names: dict[tuple[str, str], list[str]] = {}
    for step in plan.steps:
        name = step.output.name
        stack, layer = layer_of(name) or ("", -1)
        part = name[len(f"{stack}.{layer}.") :] if stack else name
        tracks.setdefault((stack, part), {})[layer] = _values(step, plan)
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
    return rows


def _values(step: Step, plan: Plan) -> Values:
    """The parameters of one tensor: what each is called, of which input, and its value."""
    planned = step.planned
    if not isinstance(planned, Merge):
        source = planned.source.model if planned.sources else plan.base.name
        return ((f"copied from {source}", "", ""),)
    found: list[tuple[str, str, Any]] = []
    for field in dataclasses.fields(planned.parameters[0]):
        spec = field.metadata.get("parameter")
        name = spec.name if spec is not None else field.name
        value = getattr(planned.parameters[0], field.name)
        if isinstance(value, tuple) and spec is not None and spec.per_input:
            inputs = (source.model for source in planned.inputs)
            values = cast("tuple[Any, ...]", value)
            found += [(name, model, each) for model, each in zip(inputs, values, strict=False)]
        else:
            found.append((name, "", value))
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
