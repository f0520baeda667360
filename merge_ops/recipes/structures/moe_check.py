"""Checking a mergekit-moe file: every fault of the document at once.

mergekit ignores keys that it does not know and says the rest one by one, some of it when models
have been loaded; here all of it is told before anything is opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from merge_ops.calibration.texts import CalibrationTexts
from merge_ops.errors import Fault, RecipeError, did_you_mean, quoted
from merge_ops.methods import method_named
from merge_ops.recipes.recipe import (
    DTYPES,
    KEEP_ALL,
    KEEP_CHAMPION,
    KEEPS,
    ModelEntry,
    Recipe,
)
from merge_ops.recipes.spelling import composed, reference, reference_faults, whole_number
from merge_ops.recipes.structures.moe_step import (
    DRAWN_MODES,
    EXPERT_KEYS,
    GATE_MODES,
    HIDDEN,
    METHOD,
    SOURCE_MODEL,
    MoeExpert,
    MoeStep,
)

MOE_KEYS = (
    "base_model", "experts", "gate_mode", "shared_experts", "experts_per_token", "dtype",
    "architecture", "name", "title", "description", "seed", "verify", "accept_licence_conflicts",
    "suite", "gate", "keep",
)  # fmt: skip
ARCHITECTURES = ("Mixtral", "DeepSeek MoE", "Qwen MoE", "Qwen3 MoE")
"""mergekit-moe's names of what comes out; a recipe gives one, or how it begins."""
_OF_SETS = ("sweep", "search", "soup")
_PROMPTS = ("positive_prompts", "negative_prompts")
_SCALES = ("noise_scale", "residual_scale")


def moe_recipe(value: Mapping[str, Any], name: str, subject: str) -> Recipe:
    """Return the recipe of a document that makes a mixture of experts.

    Raises RecipeError with all faults.
    """
    document = _as_written_here(value)
    faults = [*_key_faults(document), *_scalar_faults(document), *_expert_faults(document)]
    faults += _shared_faults(document)
    if faults:
        raise RecipeError(subject, faults)
    step = _step(document)
    faults = list(_step_faults(step))
    if faults:
        raise RecipeError(subject, faults)
    return Recipe(
        name=document.get("name") or name,
        subject=subject,
        merge_method=METHOD,
        method=method_named(METHOD, subject),
        models=(ModelEntry(step.base_model),),
        dtype=document.get("dtype"),
        verify=document.get("verify") is not False,
        accept_licence_conflicts=tuple(document.get("accept_licence_conflicts") or ()),
        seed=document.get("seed") or 0,
        moe=step,
        suite=composed(document.get("suite")),
        gate=document.get("gate") or {},
        keep=document.get("keep"),
        title=document.get("title"),
        description=document.get("description"),
    )


def _as_written_here(document: Mapping[str, Any]) -> dict[str, Any]:
    table = dict(document)
    if "base_model" in table:
        table["base_model"] = reference(table["base_model"])
    for key in ("experts", "shared_experts"):
        if isinstance(table.get(key), list):
            listed = cast("list[Any]", table[key])
            table[key] = [_entry_as_written(each) for each in listed]
    if isinstance(table.get("dtype"), str):
        table["dtype"] = table["dtype"].removeprefix("torch.")
    if "experts_per_token" in table:
        table["experts_per_token"] = whole_number(table["experts_per_token"])
    return table


def _entry_as_written(entry: Any) -> Any:
    if not isinstance(entry, dict) or SOURCE_MODEL not in entry:
        return cast(Any, entry)
    table = cast("dict[str, Any]", entry)
    return {**table, SOURCE_MODEL: reference(table[SOURCE_MODEL])}


def _key_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    for key in document:
        if key in MOE_KEYS:
            continue
        if key in _OF_SETS:
            problem = "is for merges; a mixture of experts has no parameters to choose: remove it"
            yield Fault(key, problem)
            continue
        problem = "is no key of a mixture of experts (a file whose experts have `source_model`)."
        hint = did_you_mean(str(key), MOE_KEYS)
        yield Fault(str(key), f"{problem}{hint} Known: {', '.join(MOE_KEYS)}")


def _scalar_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    if document.get("base_model") is None:
        problem = "is missing; it gives attention, norms, embeddings, head and tokenizer"
        yield Fault("base_model", problem)
    else:
        yield from reference_faults("base_model", document["base_model"])
    for key, known in (("gate_mode", GATE_MODES), ("dtype", tuple(DTYPES))):
        value = document.get(key)
        if value is not None and value not in known:
            hint = did_you_mean(str(value), known)
            yield Fault(key, f"is {quoted(value)}; it must be one of {', '.join(known)}.{hint}")
    architecture = document.get("architecture")
    if architecture is not None and not named_architectures(architecture):
        names = ", ".join(ARCHITECTURES)
        hint = did_you_mean(str(architecture), ARCHITECTURES)
        problem = f"is {quoted(architecture)}; it must be how one of these begins: {names}.{hint}"
        yield Fault("architecture", problem)
    per_token, experts = document.get("experts_per_token"), document.get("experts")
    count = len(cast("list[Any]", experts)) if isinstance(experts, list) else 0
    if per_token is not None and (type(per_token) is not int or not 1 <= per_token <= count):
        problem = f"is {quoted(per_token)}; it must be a whole number from 1 to {count}, the"
        yield Fault("experts_per_token", f"{problem} number of experts")
    kinds = {"name": str, "title": str, "description": str, "verify": bool}
    for key, kind in kinds.items():
        if document.get(key) is not None and not isinstance(document[key], kind):
            allowed = "text" if kind is str else "true or false"
            yield Fault(key, f"is {quoted(document[key])}; it must be {allowed}")
    if document.get("suite") is not None and not (isinstance(document["suite"], str)):
        yield Fault("suite", f"is {quoted(document['suite'])}; it must be the name of a suite")
    if document.get("gate") is not None and not isinstance(document["gate"], dict):
        yield Fault("gate", f"is {quoted(document['gate'])}; it must be a mapping")
    yield from keep_faults(document, document.get("gate_mode") not in DRAWN_MODES)
    seed = document.get("seed")
    if seed is not None and (type(seed) is not int or seed < 0):
        yield Fault("seed", f"is {quoted(seed)}; it must be a whole number from 0 on")
    accepted = document.get("accept_licence_conflicts")
    if accepted is not None and not _are_texts(accepted):
        yield Fault("accept_licence_conflicts", "must be a list such as [gpl-3.0 + llama3.1]")


def keep_faults(document: Mapping[str, Any], measured: bool) -> Iterator[Fault]:
    """Yield what is wrong with `keep`: gates that were `measured` are no part of a manifest."""
    keep = document.get("keep")
    if keep is None:
        return
    if keep not in KEEPS:
        hint = did_you_mean(str(keep), KEEPS)
        yield Fault("keep", f"is {quoted(keep)}; it must be one of {', '.join(KEEPS)}.{hint}")
    elif measured and keep != KEEP_ALL:
        problem = f"is {keep!r}, and gates that are made of prompts are written with their model:"
        yield Fault("keep", f"{problem} say `keep: {KEEP_ALL}`, or leave it out")
    elif keep == KEEP_CHAMPION and document.get("suite") is None:
        problem = "is 'champion', and a recipe without a suite never has one; add `suite:`, or say"
        yield Fault("keep", f"{problem} `keep: all`, which is what holds without a suite")


def named_architectures(value: object) -> tuple[str, ...]:
    """Return the architectures that a word is the beginning of, whatever its capitals."""
    if not isinstance(value, str) or not value.strip():
        return ()
    return tuple(each for each in ARCHITECTURES if each.lower().startswith(value.strip().lower()))


def _expert_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    entries = document["experts"]
    if not entries:
        yield Fault("experts", "is empty; list at least one expert with a `source_model`")
    yield from _entry_faults("experts", entries, document.get("gate_mode") not in DRAWN_MODES)


def _shared_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    entries = document.get("shared_experts")
    if entries is None:
        return
    if not isinstance(entries, list):
        yield Fault("shared_experts", f"is {quoted(entries)}; it must be a list")
        return
    count = len(cast("list[Any]", entries))
    if count > 1:
        yield Fault("shared_experts", f"lists {count} models; the families have one at most")
    yield from _entry_faults("shared_experts", entries, False)


def _entry_faults(where: str, entries: Any, needs_prompts: bool) -> Iterator[Fault]:
    for number, entry in enumerate(cast("list[Any]", entries)):
        place = f"{where}[{number}]"
        if not isinstance(entry, dict):
            yield Fault(place, f"is {quoted(entry)}; it must be a mapping with `source_model`")
            continue
        table = cast("dict[str, Any]", entry)
        for key in table:
            if key not in EXPERT_KEYS:
                hint = did_you_mean(str(key), EXPERT_KEYS)
                problem = f"is no key of an expert.{hint} Known: {', '.join(EXPERT_KEYS)}"
                yield Fault(f"{place}.{key}", problem)
        yield from reference_faults(f"{place}.{SOURCE_MODEL}", table.get(SOURCE_MODEL))
        for key in _PROMPTS:
            value = table.get(key)
            if value is not None and not _are_texts(value):
                problem = f"is {quoted(value)}; it must be a list of texts, none of them empty"
                yield Fault(f"{place}.{key}", problem)
        for key in _SCALES:
            value: Any = table.get(key)
            sound = type(value) in (int, float) and math.isfinite(cast(float, value))
            if value is not None and (not sound or (key == "noise_scale" and value < 0)):
                rule = "a number from 0 on" if key == "noise_scale" else "a finite number"
                yield Fault(f"{place}.{key}", f"is {quoted(value)}; it must be {rule}")
        texts = table.get("texts")
        if texts is not None and (not isinstance(texts, str) or not texts.strip()):
            problem = f"is {quoted(texts)}; it must name a file: one text a line, or .jsonl with"
            yield Fault(f"{place}.texts", f"{problem} `text`")
        elif texts is not None and table.get("positive_prompts"):
            yield Fault(f"{place}.texts", "and `positive_prompts` say one thing; remove one")
        if needs_prompts and not table.get("positive_prompts") and not texts:
            modes = " or ".join(f"`gate_mode: {each}`" for each in DRAWN_MODES)
            problem = "is missing: gates are made of prompts; add some (or `texts: FILE`), or use"
            problem += f" {modes}"
            yield Fault(f"{place}.positive_prompts", problem)
        elif table.get("negative_prompts") and not (table.get("positive_prompts") or texts):
            yield Fault(f"{place}.negative_prompts", "needs `positive_prompts` beside it")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) and bool(each.strip()) for each in cast("list[Any]", value)
    )


def _step(document: Mapping[str, Any]) -> MoeStep:
    shared = cast("list[dict[str, Any]]", document.get("shared_experts") or [])
    return MoeStep(
        base_model=document["base_model"],
        experts=tuple(map(_expert, cast("list[dict[str, Any]]", document["experts"]))),
        shared=_expert(shared[0]) if shared else None,
        gate_mode=document.get("gate_mode") or HIDDEN,
        experts_per_token=document.get("experts_per_token"),
        architecture=document.get("architecture"),
    )


def _expert(entry: Mapping[str, Any]) -> MoeExpert:
    return MoeExpert(
        source_model=entry[SOURCE_MODEL],
        positive_prompts=tuple(entry.get("positive_prompts") or ()),
        negative_prompts=tuple(entry.get("negative_prompts") or ()),
        noise_scale=entry.get("noise_scale"),
        residual_scale=entry.get("residual_scale"),
        texts=CalibrationTexts(entry["texts"]) if entry.get("texts") else None,
    )


def _step_faults(step: MoeStep) -> Iterator[Fault]:
    """What only shows when all entries are looked at together."""
    if len(step.experts) > 1 and step.needs_prompts:
        asked = {
            (each.positive_prompts, each.negative_prompts, each.texts) for each in step.experts
        }
        if len(asked) == 1:
            problem = "have the same prompts, so that every router's rows are equal and no token"
            yield Fault("experts", f"{problem} is told from another; say what each is for")
        models = {each.source_model for each in step.experts}
        noisy = any(each.noise_scale for each in step.experts)
        if len(models) == 1 and not noisy:
            problem = "are one model, so that routing changes nothing until it is trained further;"
            yield Fault("experts", f"{problem} to train it (upcycling), use `gate_mode: random`")
    only_deepseek = named_architectures(step.architecture) == ("DeepSeek MoE",)
    if only_deepseek and step.shared and step.shared.is_described:
        problem = "has no effect in DeepSeek MoE, whose shared experts have no gate; remove it"
        yield Fault("shared_experts[0].positive_prompts", problem)
