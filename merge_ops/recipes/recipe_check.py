"""Checking a recipe's YAML: every fault with its place, what is allowed and a did-you-mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from merge_ops.errors import Fault, RecipeError, did_you_mean
from merge_ops.methods import MergeMethod, method_named
from merge_ops.methods.parameters import Parameter, setting_faults
from merge_ops.recipes.foreign_files import foreign_file
from merge_ops.recipes.misplaced import RECIPE_KEYS, unknown_key, unknown_parameter
from merge_ops.recipes.recipe import ALL, ALL_PAIRS, DTYPES, KEEP_CHAMPION, KEEPS, SOUPS, Recipe
from merge_ops.recipes.router_policy import router_faults, router_policy
from merge_ops.recipes.search_check import search_faults, shadowed, soup_faults
from merge_ops.recipes.section_check import parameter_faults, section_faults, section_of
from merge_ops.recipes.spelling import as_written_here, composed, reference_faults
from merge_ops.recipes.structures.conversion_step import CONVERT, conversion_faults
from merge_ops.recipes.structures.expand_step import (
    expand_faults,
    expand_step,
)
from merge_ops.recipes.structures.moe_check import moe_recipe
from merge_ops.recipes.structures.moe_fewer import fewer_faults, fewer_step
from merge_ops.recipes.structures.moe_step import is_moe
from merge_ops.recipes.structures.one_model import as_passthrough
from merge_ops.recipes.structures.symmetry_step import (
    symmetry_faults,
    symmetry_step,
)
from merge_ops.recipes.structures.vocabulary_step import (
    vocabulary_faults,
    vocabulary_step,
)
from merge_ops.recipes.structures.window_check import as_linear, window_faults, window_step
from merge_ops.recipes.vocabulary_policy import policy_faults, policy_of

MAX_COEFFICIENTS = 4096


def check_recipe(value: Any, name: str, subject: str) -> Recipe:
    """Return the recipe that a parsed YAML document describes.

    Raises RecipeError with all faults, or UnknownMethodError.
    """
    if not isinstance(value, dict):
        raise RecipeError(subject, [Fault("", "is no mapping of keys to values")])
    if is_moe(cast(dict[Any, Any], value)):
        return moe_recipe(cast(dict[str, Any], value), name, subject)
    foreign = foreign_file(cast(dict[Any, Any], value))
    if foreign is not None:
        raise RecipeError(subject, [foreign])
    document = as_written_here(cast(dict[str, Any], value))
    faults = [
        *_key_faults(document),
        *symmetry_faults(document),
        *conversion_faults(document),
        *window_faults(document),
        *expand_faults(document),
        *vocabulary_faults(document),
        *fewer_faults(document),
    ]
    document = as_linear(as_passthrough(document))
    method_name = document.get("merge_method")
    if not isinstance(method_name, str):
        faults.append(Fault("merge_method", "is missing; name one, for example 'ties'"))
        raise RecipeError(subject, faults)
    method = method_named(method_name, subject) if not faults else _method(method_name, faults)
    if method is None:
        raise RecipeError(subject, faults)
    for check in (
        section_faults,
        _parameters,
        _sweep,
        search_faults,
        soup_faults,
        _experts,
        _scalars,
    ):
        faults.extend(check(document, method))
    faults.extend(policy_faults(document))
    faults.extend(router_faults(document))
    if faults:
        raise RecipeError(subject, faults)
    return _build(document, method, name, subject)


def _method(name: str, faults: list[Fault]) -> MergeMethod | None:
    """The method, or a further fault beside those already found."""
    try:
        return method_named(name, "")
    except RecipeError as error:
        faults.extend(error.faults)
        return None


def _key_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    for key in document:
        if key not in RECIPE_KEYS:
            yield Fault(str(key), unknown_key(key, RECIPE_KEYS, "a recipe"))


def _parameters(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    yield from parameter_faults("parameters", document.get("parameters"), method, False)


def _sweep(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    sweep = document.get("sweep")
    if sweep is None or "window" in document:  # whose sweep is over windows
        return
    if not isinstance(sweep, dict) or not sweep:
        yield Fault("sweep", "must be a mapping of parameter to a list of values")
        return
    points = 1
    for key, values in cast(dict[str, Any], sweep).items():
        where = f"sweep.{key}"
        if key not in method.parameter_specs:
            yield Fault(where, unknown_parameter(key, method))
        elif not isinstance(values, list) or not values:
            yield Fault(where, "must be a list of values, at least one")
        else:
            entries = cast(list[Any], values)
            found = list(_swept_faults(where, method.parameter_specs[key], entries))
            yield from found
            meant = [] if found else [_meant(method.parameter_specs[key], e) for e in entries]
            if len(set(meant)) < len(meant):
                yield Fault(where, f"names a value twice: {', '.join(map(str, entries))}")
            points *= len(entries)
            yield from shadowed(document, f"sweep.{key}", key)
    if points > MAX_COEFFICIENTS:
        yield Fault("sweep", f"has {points} points; at most {MAX_COEFFICIENTS} are allowed")


def _swept_faults(where: str, spec: Parameter, values: list[Any]) -> Iterator[Fault]:
    """What is wrong with the values of a sweep, each of which names candidates and folders."""
    for position, value in enumerate(values):
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(e, dict) for e in cast(list[Any], value))
        ):
            problem = (
                "has a filter; the values of a sweep are numbers, words, or lists of them over"
            )
            problem += " the layers. Write filters into `parameters`, a recipe for each"
            yield Fault(f"{where}[{position}]", problem)
        else:
            yield from setting_faults(f"{where}[{position}]", spec, cast(object, value))


def _meant(spec: Parameter, value: Any) -> object:
    """What a sound value of a sweep is, however it is written: 1, 1.0, and '1'."""
    if isinstance(value, list):
        return tuple(spec.check(each) for each in cast(list[Any], value))
    return spec.check(value)


def _experts(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    if "experts" not in document:
        return
    for position, entry in enumerate(_expert_entries(document["experts"])):
        where = f"experts[{position}]"
        if isinstance(entry, list):
            names = cast(list[Any], entry)
            if not all(isinstance(name, str) and name for name in names) or not names:
                yield Fault(where, "must be a list of expert names")
        elif not isinstance(entry, str):
            yield Fault(where, f"is {entry!r}; allowed: {ALL_PAIRS}, {ALL}, or lists of names")
        elif entry not in (ALL_PAIRS, ALL) and "+" not in entry:
            hint = did_you_mean(entry, (ALL_PAIRS, ALL))
            yield Fault(
                where, f"is {entry!r}; allowed: {ALL_PAIRS}, {ALL}, or lists of names.{hint}"
            )


def _expert_entries(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [value]


def _scalars(document: Mapping[str, Any], method: MergeMethod) -> Iterator[Fault]:
    kinds: dict[str, tuple[Callable[[Any], bool], str]] = {
        "dtype": (lambda value: value in tuple(DTYPES), f"one of {', '.join(DTYPES)}"),
        "out_dtype": (lambda value: value in tuple(DTYPES), f"one of {', '.join(DTYPES)}"),
        "name": (lambda value: isinstance(value, str) and bool(value), "a name"),
        "title": (lambda value: isinstance(value, str), "words on one line"),
        "description": (lambda value: isinstance(value, str), "words"),
        "suite": (lambda value: isinstance(value, str) and bool(value), "the name of a suite"),
        "gate": (lambda value: isinstance(value, dict), "a mapping"),
        "search": (lambda value: isinstance(value, dict), "a mapping"),
        "soup": (lambda value: value in SOUPS, f"one of {', '.join(SOUPS)}"),
        "keep": (lambda value: value in KEEPS, f"one of {', '.join(KEEPS)}"),
        "verify": (lambda value: isinstance(value, bool), "true or false"),
        "accept_licence_conflicts": (_are_texts, "a list such as [gpl-3.0 + llama3.1]"),
        "seed": (lambda value: type(value) is int and value >= 0, "a whole number from 0 on"),
    }
    for key, (sound, allowed) in kinds.items():
        value = document.get(key)
        if value is not None and not sound(value):
            hint = _dtype_hint(str(value)) if key.endswith("dtype") else ""
            words = {"keep": KEEPS, "soup": SOUPS}.get(key)
            hint = did_you_mean(str(value), words) if words else hint
            yield Fault(key, f"is {value!r}; it must be {allowed}.{hint}")
    if document.get("keep") == KEEP_CHAMPION and document.get("suite") is None:
        problem = "is 'champion', and a recipe without a suite never has one; add `suite:`, or say"
        yield Fault("keep", f"{problem} `keep: all`, which is what holds without a suite")
    if document.get("base_model") is not None:
        yield from reference_faults("base_model", document["base_model"])
    if "experts" not in document and method.base == "required" and not document.get("base_model"):
        yield Fault("base_model", f"is missing; {method.name} needs one")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) and bool(each.strip()) for each in cast(list[Any], value)
    )


def _dtype_hint(value: str) -> str:
    """` Did you mean 'bfloat16'?` for `bf16`, and the like."""
    short = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
    named = short.get(value.lower().replace("float", "fp"))
    return f" Did you mean '{named}'?" if named else did_you_mean(value, DTYPES)


def _build(document: Mapping[str, Any], method: MergeMethod, name: str, subject: str) -> Recipe:
    section = section_of({key: document.get(key) for key in ("models", "slices")})
    symmetry = symmetry_step(document)
    modules = cast(dict[str, dict[str, Any]], document.get("modules") or {})
    sweep = cast(dict[str, list[Any]], document.get("sweep") or {})
    experts: list[str | tuple[str, ...]] = []
    for entry in _expert_entries(document.get("experts") or []):
        if isinstance(entry, list):
            experts.append(tuple(cast(list[str], entry)))
        else:
            experts.append(entry if entry in (ALL_PAIRS, ALL) else tuple(entry.split("+")))
    return Recipe(
        name=document.get("name") or name,
        subject=subject,
        merge_method=method.name,
        method=method,
        models=section.models,
        slices=section.slices,
        modules={name: section_of(table, f"modules.{name}.") for name, table in modules.items()},
        base_model=document.get("base_model") if symmetry is None else None,
        parameters=document.get("parameters") or {},
        dtype=document.get("dtype"),
        out_dtype=document.get("out_dtype"),
        tokenizer=policy_of(document),
        chat_template=document.get("chat_template"),
        experts=tuple(experts),
        sweep={key: tuple(values) for key, values in sweep.items()},
        suite=composed(document.get("suite")),
        gate=document.get("gate") or {},
        search=document.get("search") or {},
        soup=document.get("soup"),
        keep=document.get("keep"),
        verify=document.get("verify") is not False,
        accept_licence_conflicts=tuple(document.get("accept_licence_conflicts") or ()),
        seed=document.get("seed") or 0,
        symmetry=symmetry,
        router=router_policy(document),
        conversion=document.get(CONVERT),
        window=window_step(document),
        expand=expand_step(document),
        vocabulary=vocabulary_step(document),
        fewer=fewer_step(document),
        title=document.get("title"),
        description=document.get("description"),
    )
