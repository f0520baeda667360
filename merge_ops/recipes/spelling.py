"""The other spellings that mergekit takes, written as the rest of the recipe's reader knows them.

    model: {model: {path: org/name, revision: main}, lora: {path: tuned}}    org/name@main+tuned
    dtype: torch.bfloat16                                                    bfloat16
    layer_range: [0.0, "24"]                                                 [0, 24]
    slices: [{merge_method: linear, …}]          taken where it is the recipe's own, else a fault

What has no such form is left as it is, for the checks to name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from merge_ops.errors import Fault, did_you_mean
from merge_ops.methods.parameters import true_or_false

REFERENCE_KEYS = ("model", "lora", "override_architecture")
PATH_KEYS = ("path", "revision")
NO_ARCHITECTURE = (
    "is not taken: tensors are matched by their names, whatever the architecture is called. Leave"
    " it out; where the merged model needs another one, change `architectures` in its config.json"
)

Table = dict[str, Any]
Rewrite = Callable[[Any], Any]


def as_written_here(document: Mapping[str, Any]) -> Table:
    """Return a recipe's document in the one spelling that is checked. `document` stays as it is."""
    method = document.get("merge_method")
    table = _each(document, ("base_model", "tokenizer_source"), reference)
    table = _each(table, ("dtype", "out_dtype"), _dtype)
    table = _section(table, method)
    table = _each(table, ("modules",), lambda each: _values(each, lambda of: _module(of, method)))
    return _each(table, ("tokenizer",), _tokenizer)


def reference(value: Any) -> Any:
    """Return a model reference as text: `path@revision+adapter`.

    What is no sound reference is returned as it is; `reference_faults` says what is wrong with it.
    """
    if not isinstance(value, dict) or any(reference_faults("", value)):
        return cast(Any, value)
    table = cast(Table, value)
    if "path" in table:
        return _path(table)
    adapter = table.get("lora")
    return f"{_path(table['model'])}+{_path(adapter)}" if adapter else _path(table["model"])


def reference_faults(where: str, value: Any) -> Iterator[Fault]:
    """Yield what is wrong with a model reference, a text or a mapping."""
    if isinstance(value, str) and value:
        return
    if not isinstance(value, dict):
        shown = "" if value is None else f"is {value!r}; it "
        yield Fault(where, f"{shown}must name a model: a folder, org/name, or base+adapter")
        return
    table = cast(Table, value)
    if "path" in table:
        yield from _path_faults(where, table)
        return
    yield from _unknown(where, table, REFERENCE_KEYS)
    if table.get("override_architecture") is not None:
        yield Fault(f"{where}.override_architecture", NO_ARCHITECTURE)
    yield from _path_faults(f"{where}.model", table.get("model"))
    if table.get("lora") is not None:
        yield from _path_faults(f"{where}.lora", table["lora"])


def other_method_fault(where: str, given: Any, method: str) -> Fault:
    """Return the fault of a `merge_method` inside a recipe whose own is another."""
    problem = f"is {given!r}, and the recipe's is {method!r}: a recipe has one method. Write what"
    return Fault(where, f"{problem} the other merges as a document of its own, and use its result")


def _path(value: Any) -> str:
    if isinstance(value, str):
        return value
    revision = value.get("revision")
    return f"{value['path']}@{revision}" if revision else str(value["path"])


def _path_faults(where: str, value: Any) -> Iterator[Fault]:
    if isinstance(value, str) and value:
        return
    if not isinstance(value, dict):
        yield Fault(where, f"is {value!r}; it must be a path, or {{path, revision}}")
        return
    table = cast(Table, value)
    yield from _unknown(where, table, PATH_KEYS)
    for key in PATH_KEYS:
        given = table.get(key)
        if (key == "path" or given is not None) and (not isinstance(given, str) or not given):
            yield Fault(f"{where}.{key}", f"is {given!r}; it must be text, in quotes")


def _unknown(where: str, table: Table, known: tuple[str, ...]) -> Iterator[Fault]:
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known)
            problem = f"is no key of a model reference ({', '.join(known)}).{hint}"
            yield Fault(f"{where}.{key}", problem)


def _section(table: Any, method: Any) -> Table:
    """`models` and `slices` of the recipe or of a module."""
    table = _each(table, ("models",), lambda each: _items(each, _member))
    return _each(table, ("slices",), lambda each: _items(each, lambda of: _slice(of, method)))


def _module(value: Any, method: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return _section(_without_own_method(cast(Table, value), method), method)


def _slice(value: Any, method: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = _each(_without_own_method(cast(Table, value), method), ("base_model",), reference)
    return _each(table, ("sources",), lambda each: _items(each, _member))


def _member(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = _each(cast(Table, value), ("model",), reference)
    return _each(table, ("layer_range",), lambda each: _items(each, whole_number))


def _without_own_method(table: Table, method: Any) -> Table:
    """What mergekit-evolve writes: each slice repeats the recipe's method."""
    if table.get("merge_method") not in (None, method):
        return table
    return {key: value for key, value in table.items() if key != "merge_method"}


def _tokenizer(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = _each(cast(Table, value), ("source",), reference)
    table = _each(table, ("pad_to_multiple_of",), whole_number)
    return _each(table, ("tokens",), lambda each: _values(each, _token))


def _token(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    table = _each(cast(Table, value), ("source",), _row)
    return _each(table, ("force",), true_or_false)


def _row(value: Any) -> Any:
    if not isinstance(value, dict) or "kind" not in value:
        return reference(value)
    table = _each(cast(Table, value), ("model",), reference)
    return _each(table, ("token_id",), whole_number)


def _dtype(value: Any) -> Any:
    return value.removeprefix("torch.") if isinstance(value, str) else value


def composed(name: str | None) -> str | None:
    """Return a name in Unicode's composed form, as the names of files are read."""
    return unicodedata.normalize("NFC", name) if name else None


def whole_number(value: Any) -> Any:
    """Return an int for a whole number that is written as a float or as text."""
    if isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        return int(value) if len(value) < 20 else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _each(table: Any, keys: tuple[str, ...], rewrite: Rewrite) -> Table:
    """A copy of a table with some values rewritten."""
    given = cast(Table, table)
    return {key: rewrite(value) if key in keys else value for key, value in given.items()}


def _items(value: Any, rewrite: Rewrite) -> Any:
    return [rewrite(each) for each in cast(list[Any], value)] if isinstance(value, list) else value


def _values(value: Any, rewrite: Rewrite) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: rewrite(each) for key, each in cast(Table, value).items()}
