"""Steps that make a model deeper: `expand:`.

    expand: {layers: 40, every: 4, zero: [o_proj, down_proj]}    models: [{model: ./base}]
    expand: {solar: 8}                                           models: [{model: ./base}]

The first is LLaMA-Pro's (2401.02415): behind every `every`-th layer a copy of it follows whose
outputs are zero, so that the function stays the same. The second is SOLAR's depth up-scaling
(2312.15166): the model without its last 8 layers, then the model without its first 8; that is
another function, to be trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes.structures.one_model import one_model_faults

EXPAND = "expand"
OUTPUTS = ("o_proj", "down_proj")
_OF_EXPAND = ("layers", "every", "zero", "solar")


@dataclass(frozen=True)
class ExpandStep:
    """An expand step makes `layers` of a model, one new behind `every` old ones, or `solar`s.

    `solar` is the number of layers that are cut from each of the two copies.
    """

    layers: int = 0
    every: int = 0
    solar: int = 0

    @property
    def written(self) -> dict[str, Any]:
        """Return the step as a recipe says it."""
        if self.solar:
            return {EXPAND: {"solar": self.solar}}
        return {EXPAND: {"layers": self.layers, "every": self.every, "zero": list(OUTPUTS)}}


def expand_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `expand`."""
    if EXPAND not in document:
        return
    yield from one_model_faults(
        document, EXPAND, "which deepens one model", allowed=("dtype", "out_dtype")
    )
    value = document[EXPAND]
    if not isinstance(value, dict):
        yield Fault(EXPAND, "must be a mapping: `{layers: 40, every: 4}` or `{solar: 8}`")
        return
    yield from _table_faults(cast("dict[Any, Any]", value))


def _table_faults(table: Mapping[Any, Any]) -> Iterator[Fault]:
    for name in table:
        if name not in _OF_EXPAND:
            hint = did_you_mean(str(name), _OF_EXPAND)
            problem = f"is unknown; allowed: {', '.join(_OF_EXPAND)}.{hint}"
            yield Fault(f"{EXPAND}.{name}", problem)
    numbers = ("solar",) if "solar" in table else ("layers", "every")
    for name in numbers:
        value = table.get(name)
        if type(value) is not int or value < 1:
            told = f"is {value!r}" if name in table else "is missing"
            yield Fault(f"{EXPAND}.{name}", f"{told}; it must be a whole number from 1 on")
            return
    if "solar" in table:
        for name in ("layers", "every", "zero"):
            if name in table:
                yield Fault(f"{EXPAND}.{name}", "has no place beside `solar`; write one of both")
        return
    layers, every = table["layers"], table["every"]
    if layers % (every + 1):
        problem = f"is {layers}; with `every: {every}` it must be a multiple of {every + 1}"
        yield Fault(f"{EXPAND}.layers", f"{problem}: one new layer follows {every} old ones")
    zero = table.get("zero", list(OUTPUTS))
    if not isinstance(zero, list) or sorted(map(str, cast("list[Any]", zero))) != sorted(OUTPUTS):
        problem = f"is {zero!r}; it must be [{', '.join(OUTPUTS)}]: with less the new layers"
        yield Fault(f"{EXPAND}.zero", f"{problem} change what the model says")


def expand_step(document: Mapping[str, Any]) -> ExpandStep | None:
    """Return the step of a document without faults; None where it is another one."""
    if EXPAND not in document:
        return None
    table = cast("dict[str, Any]", document[EXPAND])
    return ExpandStep(table.get("layers", 0), table.get("every", 0), table.get("solar", 0))
