"""What holds for every step that changes one model and merges none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from merge_ops.errors import Fault

METHOD = "passthrough"
"""The merge method that such a step has."""
STEPS = ("moe", "convert", "expand", "vocabulary", "protect", "align")
"""The keys of these steps."""
_OTHERS = (
    "slices", "modules", "sweep", "search", "soup", "parameters", "experts", "tokenizer",
    "tokenizer_source", "base_model", "dtype", "out_dtype", "router", "window", *STEPS,
)  # fmt: skip
"""Keys of merges, and of the other steps of one model: two of them would need an order."""


def as_passthrough(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the method that such a step has; others stay as they are."""
    if not any(key in document for key in STEPS):
        return dict(document)
    return {"merge_method": METHOD, **document}


def one_model_faults(
    document: Mapping[str, Any],
    key: str,
    why: str,
    *,
    allowed: Collection[str] = (),
    hints: Mapping[str, str] | None = None,
) -> Iterator[Fault]:
    """Yield what has no place beside `key`, and whether not just one model is listed.

    `why` follows the fault ("which deepens one model"), `hints` that of some keys. `allowed` are
    keys that the step has a use for.
    """
    if document.get("merge_method") not in (None, METHOD):
        problem = f"is {document['merge_method']!r}; a step that has `{key}` merges nothing"
        yield Fault("merge_method", f"{problem}: leave it out")
    for other in _OTHERS:
        if other in document and other != key and other not in allowed:
            hint = f"; {hints[other]}" if hints and other in hints else ""
            yield Fault(other, f"has no place beside `{key}`, {why}{hint}")
    models = document.get("models")
    listed = cast("list[Any]", models) if isinstance(models, list) else []
    if len(listed) != 1:
        yield Fault("models", f"must list just the one model that `{key}` is for")
    elif isinstance(listed[0], dict) and "parameters" in listed[0]:
        yield Fault("models[0].parameters", f"has no place beside `{key}`")
