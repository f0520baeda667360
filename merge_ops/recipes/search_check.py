"""What of a recipe's `search` its method decides: which parameters there are, and their bounds.

The rest (samplers, trials, objectives) is checked by whoever searches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from merge_ops.errors import Fault
from merge_ops.methods import MergeMethod
from merge_ops.methods.parameters import Parameter, setting_faults
from merge_ops.recipes.misplaced import unknown_parameter


def search_faults(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    """Tell what is wrong with a search's parameters; nothing where there is no search."""
    search = document.get("search")
    if not isinstance(search, dict):
        return
    if document.get("sweep"):
        yield Fault("search", "stands beside `sweep`; a recipe has one of them")
    if not document.get("suite"):
        yield Fault("search", "needs a `suite`: candidates are chosen by their scores on it")
    for key, given in _tables_by_name(cast(dict[str, Any], search).get("parameters")):
        where = f"search.parameters.{key}"
        if key not in method.parameter_specs:
            yield Fault(where, unknown_parameter(key, method))
            continue
        spec = method.parameter_specs[key]
        yield from _value_faults(where, spec, given)
        if given.get("per") == "expert":
            yield from _expert_faults(document, where, spec, method)
        else:
            yield from shadowed(document, where, key)


def soup_faults(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    """Tell what a recipe with `soup` may not have, and what it lacks; nothing without one."""
    if document.get("soup") is None:
        return
    if method.name != "linear":
        problem = f"is an average of models, and {method.name} is none; use merge_method: linear"
        yield Fault("soup", problem)
    if not document.get("suite"):
        yield Fault("soup", "needs a `suite`: members are chosen by their scores on it")
    if "experts" not in document:
        yield Fault("soup", "needs `experts`: members are chosen among the experts of each set")
    for key in ("sweep", "search"):
        if document.get(key):
            yield Fault("soup", f"stands beside `{key}`; a recipe has one of them")
    for key in ("models", "slices", "modules"):
        if document.get(key):
            yield Fault("soup", f"stands beside `{key}`, and its members are chosen; remove one")
    if _sets(document, "weight"):
        yield Fault("parameters.weight", "has no effect: a soup gives its members their weights")


def _value_faults(where: str, spec: Parameter, given: Mapping[str, Any]) -> Iterator[Fault]:
    values, ends = given.get("values"), [end for end in ("low", "high") if end in given]
    if isinstance(values, list):
        for place, value in enumerate(cast(list[Any], values)):
            yield from setting_faults(f"{where}.values[{place}]", spec, value)
        return
    if ends and (spec.kind is bool or spec.choices):
        yield Fault(where, f"must be {spec.allowed()}: give `values` instead of low and high")
        return
    for end in ends:
        yield from setting_faults(f"{where}.{end}", spec, given[end])
    step = given.get("step")
    if ends and spec.kind is int and not (isinstance(step, int | float) and step % 1 == 0):
        yield Fault(where, f"must be {spec.allowed()}: give `values`, or a whole `step`")
    if spec.is_list and given.get("per") == "layers":
        yield Fault(where, "is a list of values itself, so it has no value by layers")


def _expert_faults(
    document: Mapping[str, Any], where: str, spec: Parameter, method: MergeMethod
) -> Iterator[Fault]:
    if not spec.per_input:
        yield Fault(where, f"is `per: expert`, and {method.name} has one {spec.name} for all")
    if "slices" in document or "modules" in document:
        yield Fault(where, "is `per: expert`, which a recipe of `slices` or `modules` cannot have")


def _tables_by_name(entries: Any) -> list[tuple[str, dict[str, Any]]]:
    given = cast(dict[Any, Any], entries).items() if isinstance(entries, dict) else ()
    return [(str(key), cast(dict[str, Any], each)) for key, each in given if isinstance(each, dict)]


def shadowed(document: Mapping[str, Any], where: str, key: str) -> Iterator[Fault]:
    """Tell of a swept or searched parameter that every model sets for itself.

    A sweep sits at the top `parameters`; what every model sets would hide it.
    """
    if "experts" in document:
        return
    base = document.get("base_model")
    modules = _tables(document.get("modules"))
    hidden: list[bool] = []
    for section in modules or [document]:
        of_module = _sets(section, key) if modules else False
        members = [each for each in _tables(section.get("models")) if each.get("model") != base]
        hidden += [of_module or _sets(each, key) for each in members]
        for entry in _tables(section.get("slices")):
            sources = [each for each in _tables(entry.get("sources")) if each.get("model") != base]
            hidden += [of_module or _sets(entry, key) or _sets(each, key) for each in sources]
    if hidden and all(hidden):
        problem = "has no effect: every model sets this parameter itself; remove it there"
        yield Fault(where, problem)


def _tables(entries: Any) -> list[dict[str, Any]]:
    """The mappings in a list or a mapping; whatever else is there is reported elsewhere."""
    if isinstance(entries, dict):
        entries = list(cast(dict[str, Any], entries).values())
    found = cast(list[Any], entries) if isinstance(entries, list) else []
    return [cast(dict[str, Any], each) for each in found if isinstance(each, dict)]


def _sets(entry: Mapping[str, Any], key: str) -> bool:
    """Whether an entry's own `parameters` name the key."""
    table = entry.get("parameters")
    return isinstance(table, dict) and key in table
