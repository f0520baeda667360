"""Checking what a recipe merges: its `models`, `slices` or `modules`, and their parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from merge_ops.errors import Fault
from merge_ops.methods import MergeMethod
from merge_ops.methods.parameters import setting_faults, true_or_false
from merge_ops.recipes.misplaced import (
    HARMLESS,
    MEMORY_SWITCH,
    MODEL_KEYS,
    MODULE_KEYS,
    SLICE_KEYS,
    SOURCE_KEYS,
    unknown_key,
    unknown_parameter,
)
from merge_ops.recipes.recipe import ModelEntry, Section, SliceEntry, SliceSource
from merge_ops.recipes.spelling import other_method_fault, reference_faults

FORMS = ("models", "slices", "modules")


def section_faults(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    """Yield the faults of `models`, `slices` or `modules`.

    One of them must be there, unless `experts` is.
    """
    given = [key for key in FORMS if document.get(key) is not None]
    if len(given) > 1:
        yield Fault(given[1], f"cannot stand beside `{given[0]}`; a recipe has one of them")
    elif not given and "experts" not in document and "window" not in document:
        yield Fault("models", "is missing; list the models to merge (or name `experts`)")
    elif given and given[0] != "models" and "experts" in document:
        yield Fault("experts", f"cannot stand beside `{given[0]}`, which names its models itself")
    yield from _form_faults("", document, method)
    modules = document.get("modules")
    if modules is None:
        return
    if not isinstance(modules, dict) or not modules:
        yield Fault("modules", "must be a mapping of a module's name to {models or slices}")
        return
    for name, module in cast(dict[str, Any], modules).items():
        yield from _module_faults(f"modules.{name}", module, method)


def _module_faults(where: str, module: Any, method: MergeMethod) -> Iterator[Fault]:
    if not isinstance(module, dict):
        yield Fault(where, "must be a mapping with 'models' or 'slices'")
        return
    table = cast(dict[str, Any], module)
    yield from _unknown_keys(where, table, MODULE_KEYS, "a module", method)
    if (table.get("models") is None) == (table.get("slices") is None):
        yield Fault(where, "must have either 'models' or 'slices'")
    yield from _form_faults(f"{where}.", table, method)
    yield from parameter_faults(f"{where}.parameters", table.get("parameters"), method, False)


def _form_faults(where: str, table: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    if table.get("models") is not None:
        yield from _model_list_faults(f"{where}models", table["models"], method)
    slices = table.get("slices")
    if slices is None:
        return
    if not isinstance(slices, list) or not slices:
        yield Fault(f"{where}slices", "must be a list of {sources, parameters}, at least one")
        return
    for position, entry in enumerate(cast(list[Any], slices)):
        yield from _slice_faults(f"{where}slices[{position}]", entry, method)


def _model_list_faults(where: str, models: Any, method: MergeMethod) -> Iterator[Fault]:
    if not isinstance(models, list) or not models:
        yield Fault(where, "must be a list of {model, parameters}, at least one")
        return
    seen: dict[str, int] = {}
    for position, entry in enumerate(cast(list[Any], models)):
        here = f"{where}[{position}]"
        if not isinstance(entry, dict):
            yield Fault(here, f"is {entry!r}; it must be a mapping with 'model'{_as_model(entry)}")
            continue
        table = cast(dict[str, Any], entry)
        yield from _unknown_keys(here, table, MODEL_KEYS, "a model", method)
        yield from _member_faults(here, table, method, seen, f"{where}[{{}}]", position)


def _as_model(entry: Any) -> str:
    """What a text in a list of models should have been: `model: base`."""
    if not isinstance(entry, str):
        return ""
    name = entry.removeprefix("model:").removeprefix("model：")
    return f": write `- model: {name}`" + (", with a space" if name != entry else "")


def _slice_faults(where: str, entry: Any, method: MergeMethod) -> Iterator[Fault]:
    if not isinstance(entry, dict):
        yield Fault(where, f"is {entry!r}; it must be a mapping with 'sources'")
        return
    table = cast(dict[str, Any], entry)
    yield from _unknown_keys(where, table, SLICE_KEYS, "a slice", method)
    yield from parameter_faults(f"{where}.parameters", table.get("parameters"), method, False)
    if table.get("base_model") is not None:
        yield from reference_faults(f"{where}.base_model", table["base_model"])
    sources = table.get("sources")
    if not isinstance(sources, list) or not sources:
        yield Fault(f"{where}.sources", "must be a list of {model, layer_range}, at least one")
        return
    seen: dict[str, int] = {}
    lengths: set[int] = set()
    for position, source in enumerate(cast(list[Any], sources)):
        here = f"{where}.sources[{position}]"
        if not isinstance(source, dict):
            yield Fault(here, f"is {source!r}; it must be a mapping with 'model' and 'layer_range'")
            continue
        of = cast(dict[str, Any], source)
        yield from _unknown_keys(here, of, SOURCE_KEYS, "a source", method)
        yield from _member_faults(here, of, method, seen, f"{where}.sources[{{}}]", position)
        bounds = _layer_range(of.get("layer_range"))
        if bounds is None:
            problem = f"is {of.get('layer_range')!r}; it must be [first, end], 0 <= first < end:"
            yield Fault(f"{here}.layer_range", f"{problem} layers from the first up to the end")
        else:
            lengths.add(bounds[1] - bounds[0])
    if len(lengths) > 1:
        counts = ", ".join(str(length) for length in sorted(lengths))
        problem = f"have different numbers of layers ({counts}); all ranges must be equally long"
        yield Fault(f"{where}.sources", problem)


def _member_faults(
    where: str,
    table: Mapping[str, Any],
    method: MergeMethod,
    seen: dict[str, int],
    places: str,
    position: int,
) -> Iterator[Fault]:
    """Faults of a model's name and parameters; `seen` are the names before it."""
    model = table.get("model")
    if isinstance(model, str) and model in seen:
        yield Fault(f"{where}.model", f"is {model!r} again, as in {places.format(seen[model])}")
    yield from reference_faults(f"{where}.model", model)
    seen.setdefault(str(model), position)
    yield from parameter_faults(f"{where}.parameters", table.get("parameters"), method, True)


def _layer_range(value: Any) -> tuple[int, int] | None:
    if not isinstance(value, list) or len(cast(list[Any], value)) != 2:
        return None
    first, end = cast(list[Any], value)
    sound = type(first) is int and type(end) is int and 0 <= first < end
    return (first, end) if sound else None


def _unknown_keys(
    where: str, table: Mapping[str, Any], known: Sequence[str], what: str, method: MergeMethod
) -> Iterator[Fault]:
    for key in table:
        if key == "merge_method":
            yield other_method_fault(f"{where}.{key}", table[key], method.name)
        elif key not in known:
            yield Fault(f"{where}.{key}", unknown_key(key, known, what))


def parameter_faults(
    where: str, table: Any, method: MergeMethod, of_model: bool
) -> Iterator[Fault]:
    """Yield the faults of a `parameters:` table.

    The table belongs to a model (`of_model`) or to what lies above it.
    """
    if table is None:
        return
    if not isinstance(table, dict):
        yield Fault(where, "must be a mapping of parameter to value")
        return
    specs = method.parameter_specs
    for key, setting in cast(dict[str, Any], table).items():
        here = f"{where}.{key}"
        if key not in specs:
            if key == MEMORY_SWITCH or (key in HARMLESS and true_or_false(setting) is False):
                continue  # no result depends on it, or it says what is done anyway
            yield Fault(here, unknown_parameter(key, method))
        elif of_model and not specs[key].per_input:
            yield Fault(here, "is one value for the whole merge; move it to the top `parameters`")
        else:
            yield from setting_faults(here, specs[key], setting)


def section_of(table: Mapping[str, Any], where: str = "") -> Section:
    """Return the section that a checked table describes."""
    entries = cast(list[dict[str, Any]], table.get("models") or [])
    slices = cast(list[dict[str, Any]], table.get("slices") or [])
    return Section(
        tuple(ModelEntry(each["model"], each.get("parameters") or {}) for each in entries),
        tuple(_slice_of(each) for each in slices),
        table.get("parameters") or {},
        where,
    )


def _slice_of(table: Mapping[str, Any]) -> SliceEntry:
    sources = cast(list[dict[str, Any]], table["sources"])
    return SliceEntry(
        tuple(
            SliceSource(
                each["model"],
                (each["layer_range"][0], each["layer_range"][1]),
                each.get("parameters") or {},
            )
            for each in sources
        ),
        table.get("base_model"),
        table.get("parameters") or {},
    )
