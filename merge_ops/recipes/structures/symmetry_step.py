"""Steps that keep a model's function and change its weights: `protect:` and `align:`.

    protect: {key: my.key.json}          models: [{model: ./expert}]
    protect: {key: my.key.json, undo: true}
    align: base                          base_model: ./base   models: [{model: ./suspect}]

Each is a passthrough of one model whose tensors are changed while they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes.structures.one_model import one_model_faults

PROTECT, ALIGN = "protect", "align"
SYMMETRY_KEYS = (PROTECT, ALIGN)
TO_BASE = "base"
_OF_PROTECT = ("key", "undo")


@dataclass(frozen=True)
class SymmetryStep:
    """A symmetry step protects a model by a key, undoes that, or aligns the model to `base`."""

    kind: Literal["protect", "align"]
    key: str | None = None
    undo: bool = False
    base: str | None = None

    @property
    def written(self) -> dict[str, Any]:
        """Return the step as a recipe says it."""
        if self.kind == ALIGN:
            return {ALIGN: TO_BASE, "base_model": self.base}
        return {PROTECT: {"key": self.key, **({"undo": True} if self.undo else {})}}


def symmetry_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `protect` or `align`."""
    asked = [key for key in SYMMETRY_KEYS if key in document]
    if not asked:
        return
    key = asked[0]
    if len(asked) > 1:
        yield Fault(ALIGN, f"and {PROTECT} are two steps; write two documents")
    allowed = ("base_model", *SYMMETRY_KEYS)
    yield from one_model_faults(
        document, key, "which changes one model and no more", allowed=allowed
    )
    value = document[key]
    if key == ALIGN:
        if value != TO_BASE:
            problem = f"is {value!r}; it must be '{TO_BASE}': the model is aligned to `base_model`"
            yield Fault(ALIGN, problem)
        if not document.get("base_model"):
            yield Fault("base_model", f"is missing; `{ALIGN}: {TO_BASE}` needs one")
        return
    if document.get("base_model"):
        yield Fault("base_model", f"has no effect beside `{PROTECT}`; remove it")
    if not isinstance(value, dict):
        yield Fault(PROTECT, "must be a mapping with the key's file: `protect: {key: my.key.json}`")
        return
    table = cast("dict[str, Any]", value)
    for name in table:
        if name not in _OF_PROTECT:
            hint = did_you_mean(str(name), _OF_PROTECT)
            yield Fault(
                f"{PROTECT}.{name}", f"is unknown; allowed: {', '.join(_OF_PROTECT)}.{hint}"
            )
    if not isinstance(table.get("key"), str) or not table["key"]:
        yield Fault(f"{PROTECT}.key", "must name a file that `ronghe protection-key` wrote")
    if not isinstance(table.get("undo", False), bool):
        yield Fault(f"{PROTECT}.undo", f"is {table['undo']!r}; it must be true or false")


def symmetry_step(document: Mapping[str, Any]) -> SymmetryStep | None:
    """Return the step of a document without faults; None where it is another one."""
    if ALIGN in document:
        return SymmetryStep(ALIGN, base=str(document["base_model"]))
    if PROTECT in document:
        table = cast("dict[str, Any]", document[PROTECT])
        return SymmetryStep(PROTECT, str(table["key"]), bool(table.get("undo", False)))
    return None
