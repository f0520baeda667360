"""Checking a `window:` and its sweep: every fault from the document alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes.spelling import reference, reference_faults
from merge_ops.recipes.structures.window_step import (
    LEAVE_OUT,
    METHOD,
    REFUSE,
    STEP,
    SWEPT,
    WINDOW,
    WindowStep,
    needs_beta,
)
from merge_ops.recipes.structures.window_weights import EMA, SCHEDULES, UNIFORM, sum_problem

KEYS = ("run", "last", "steps", "every", "weights", "beta", "unfinished")
MOST_STEPS = 10_000  # of a list: more is a slip
_OF_MERGES = ("models", "slices", "modules", "base_model", "parameters", "experts", "search",
              "soup", "tokenizer", "tokenizer_source")  # fmt: skip


def as_linear(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with the method that a window has; others stay as they are."""
    if WINDOW not in document:
        return dict(document)
    return {"merge_method": METHOD, "parameters": {"normalize": False}, **document}


def window_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `window`, with its sweep, and with what stands beside it."""
    if WINDOW not in document:
        return
    if document.get("merge_method") not in (None, METHOD):
        problem = f"is {document['merge_method']!r}, and a window is an average ({METHOD})"
        yield Fault("merge_method", f"{problem}: leave it out")
    for other in _OF_MERGES:
        if other in document:
            problem = "has no place beside `window`, whose models and weights are the run's steps;"
            yield Fault(other, f"{problem} write a second document that uses this one's result")
    value = document[WINDOW]
    if not isinstance(value, dict):
        yield Fault(WINDOW, "must be a mapping such as {run: ./run, last: 4, weights: uniform}")
        return
    window = cast("dict[str, Any]", value)
    sweep = document.get("sweep")
    swept = cast("dict[str, Any]", sweep) if isinstance(sweep, dict) else {}
    for key in window:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            yield Fault(f"{WINDOW}.{key}", f"is no key of a window ({', '.join(KEYS)}).{hint}")
    yield from _run_faults(window.get("run"))
    yield from _step_faults(window, swept)
    yield from _weight_faults(window, swept)
    told = (REFUSE, LEAVE_OUT)
    if window.get("unfinished", REFUSE) not in told:
        problem = f"is {window['unfinished']!r}; it must be {REFUSE} or {LEAVE_OUT}, which passes"
        yield Fault(f"{WINDOW}.unfinished", f"{problem} over steps without whole weights")
    if sweep is not None:
        yield from _sweep_faults(window, sweep)


def _run_faults(run: Any) -> Iterator[Fault]:
    where = f"{WINDOW}.run"
    if isinstance(run, str) and run:
        if run.count(STEP) > 1:
            yield Fault(where, f"has {STEP} more than once")
        return
    if isinstance(run, list) and run:
        entries = [reference(each) for each in cast("list[Any]", run)]
        for position, each in enumerate(entries):
            yield from reference_faults(f"{where}[{position}]", each)
        yield from _twice(where, entries)
        return
    if isinstance(run, dict) and run:
        told = cast("dict[Any, Any]", run)
        yield from _twice(where, [reference(each) for each in told.values()])
        for step, each in told.items():
            if type(step) is not int or step < 0:
                yield Fault(f"{where}.{step}", "is no step; write `1000: reference`")
            yield from reference_faults(f"{where}.{step}", reference(each))
        return
    problem = "" if run is None else f"is {run!r}; it "
    problem += f"must name a folder of steps, a reference with {STEP} in it, a list of references,"
    yield Fault(where, f"{problem} or a mapping of step to reference")


def _twice(where: str, entries: list[Any]) -> Iterator[Fault]:
    texts = [each for each in entries if isinstance(each, str)]
    for each in dict.fromkeys(texts):
        if texts.count(each) > 1:
            yield Fault(where, f"lists {each!r} twice; it would count twice")


def _step_faults(window: Mapping[str, Any], swept: Mapping[str, Any]) -> Iterator[Fault]:
    for key in ("last", "every"):
        if window.get(key) is not None:
            yield from _whole_faults(f"{WINDOW}.{key}", window[key])
    steps = window.get("steps")
    if steps is None:
        return
    for key in ("last", "every"):
        if window.get(key) is not None or key in swept:
            yield Fault(f"{WINDOW}.steps", f"cannot stand beside `{key}`: it names every step")
    entries = cast("list[Any]", steps) if isinstance(steps, list) else []
    if not entries or any(type(each) is not int or each < 0 for each in entries):
        yield Fault(f"{WINDOW}.steps", f"is {steps!r}; it must be a list of step numbers")
    elif len(entries) > MOST_STEPS:
        yield Fault(f"{WINDOW}.steps", f"lists {len(entries)} steps; at most {MOST_STEPS}")
    else:
        for each in dict.fromkeys(entries):
            if entries.count(each) > 1:
                yield Fault(f"{WINDOW}.steps", f"names step {each} twice; it would count twice")


def _weight_faults(window: Mapping[str, Any], swept: Mapping[str, Any]) -> Iterator[Fault]:
    where, weights = f"{WINDOW}.weights", window.get("weights", UNIFORM)
    if isinstance(weights, list):
        entries = cast("list[Any]", weights)
        if not entries or not all(map(_is_number, entries)):
            yield Fault(where, f"is {weights!r}; each weight must be a finite number")
        else:
            problem = sum_problem([float(each) for each in entries])
            if problem is not None:
                yield Fault(where, problem)
            yield from _count_faults(where, window, len(entries))
        for key in ("last", "every"):
            if key in swept:
                problem = f"is a list, and the sweep's windows differ in `{key}`; name a schedule"
                yield Fault(where, problem)
    elif weights not in SCHEDULES:
        hint = did_you_mean(str(weights), SCHEDULES)
        allowed = f"{', '.join(SCHEDULES)}, or a list of numbers"
        yield Fault(where, f"is {weights!r}; allowed: {allowed}.{hint}")
    beta = window.get("beta")
    if beta is not None and not _is_beta(beta):
        yield Fault(f"{WINDOW}.beta", f"is {beta!r}; {_BETA}")
    asked = needs_beta(window, swept)
    if asked and beta is None and "beta" not in swept:
        yield Fault(f"{WINDOW}.beta", f"is missing; {EMA} needs one. {_BETA.capitalize()}")
    if not asked and (beta is not None or "beta" in swept):
        yield Fault(f"{WINDOW}.beta", f"has no effect: only `weights: {EMA}` has one; remove it")


_BETA = "it must be at least 0 and below 1 (what is left of a weight one mean spacing later)"


def _count_faults(where: str, window: Mapping[str, Any], count: int) -> Iterator[Fault]:
    """Weights for another number of steps, as far as the document alone tells."""
    steps, last, run = window.get("steps"), window.get("last"), window.get("run")
    wanted: int | None = None
    if isinstance(steps, list):
        wanted = len(cast("list[Any]", steps))
    elif type(last) is int:
        wanted = last
    if wanted is not None and wanted != count:
        yield Fault(where, f"has {count} numbers, and the window {wanted} steps")
    if isinstance(run, list | dict) and steps is None and (last or window.get("every")):
        problem = "is a list beside `last` or `every`, so that it is not plain which number is"
        yield Fault(where, f"{problem} whose; name `steps`, whose order the numbers then follow")


def _sweep_faults(window: Mapping[str, Any], sweep: Any) -> Iterator[Fault]:
    from merge_ops.recipes.recipe_check import MAX_COEFFICIENTS

    if not isinstance(sweep, dict) or not sweep:
        yield Fault("sweep", "must be a mapping such as {last: [2, 4, 8]}")
        return
    points = 1
    for key, values in cast("dict[str, Any]", sweep).items():
        where = f"sweep.{key}"
        if key not in SWEPT:
            problem = f"is nothing that windows can differ in ({', '.join(SWEPT)})."
            yield Fault(where, problem + did_you_mean(str(key), SWEPT))
            continue
        if not isinstance(values, list) or not values:
            yield Fault(where, "must be a list of values, at least one")
            continue
        entries = cast("list[Any]", values)
        points *= len(entries)
        if key in window:
            yield Fault(where, f"stands in `{WINDOW}` too; a value has one place")
        for position, each in enumerate(entries):
            yield from _swept_faults(f"{where}[{position}]", key, each)
        if len({str(each) for each in entries}) < len(entries):
            yield Fault(where, f"names a value twice: {', '.join(map(str, entries))}")
    if points > MAX_COEFFICIENTS:
        yield Fault("sweep", f"has {points} points; at most {MAX_COEFFICIENTS} are allowed")


def _swept_faults(where: str, key: str, value: Any) -> Iterator[Fault]:
    if key == "weights":
        if value not in SCHEDULES:
            hint = did_you_mean(str(value), SCHEDULES)
            yield Fault(where, f"is {value!r}; allowed: {', '.join(SCHEDULES)}.{hint}")
    elif key == "beta":
        if not _is_beta(value):
            yield Fault(where, f"is {value!r}; {_BETA}")
    else:
        yield from _whole_faults(where, value)


def _whole_faults(where: str, value: Any) -> Iterator[Fault]:
    if type(value) is not int or value < 1:
        yield Fault(where, f"is {value!r}; it must be a whole number from 1 on")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_beta(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def window_step(document: Mapping[str, Any]) -> WindowStep | None:
    """Return the window of a document without faults; None where it has none."""
    if WINDOW not in document:
        return None
    table = cast("dict[str, Any]", document[WINDOW])
    run, weights = table["run"], table.get("weights", UNIFORM)
    if isinstance(run, list):
        run = tuple(reference(each) for each in cast("list[Any]", run))
    elif isinstance(run, dict):
        run = {step: reference(each) for step, each in cast("dict[int, Any]", run).items()}
    if isinstance(weights, list):
        weights = tuple(float(each) for each in cast("list[Any]", weights))
    beta = table.get("beta")
    return WindowStep(
        run,
        table.get("last"),
        tuple(table.get("steps") or ()),
        table.get("every"),
        weights,
        None if beta is None else float(beta),
        table.get("unfinished", REFUSE),
    )
