"""Finding the steps of a window's run: by the names in its folder, or as the recipe lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Protocol

from merge_ops.checkpoints.folders.run_folders import (
    step_of,
    steps_in,
    steps_of_pattern,
    steps_of_references,
)
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.structures.window_step import LEAVE_OUT, STEP, WINDOW, with_steps

WHERE = f"{WINDOW}.run"


class RunPlaces(Protocol):
    """Run places know what lies where runs are; recipes do not."""

    def names_in(self, folder: str) -> Collection[str] | None:
        """Return the names of a folder's sub-folders, or None where they cannot be listed.

        Raises ValueError where there is no such folder; its text says what is there.
        """
        ...

    def revisions_of(self, repository: str) -> Collection[str] | None:
        """Return the names of a hub repository's revisions, or None where they cannot be listed.

        Raises ValueError where there is no such repository.
        """
        ...

    def unready(self, reference: str) -> str | None:
        """Return why a step has no whole weights, or None where it has, or nobody can tell yet."""
        ...


def with_found_steps(recipe: Recipe, places: RunPlaces) -> Recipe:
    """Return a recipe whose window knows its steps; one without a window stays as it is.

    Raises RecipeError where the run or a step is not there, where a step number stands twice, and
    where a step of the window has no whole weights, unless the window leaves those out.
    """
    window = recipe.window
    if window is None or window.found:
        return recipe
    try:
        known = steps_of_run(window.run, window.steps, places)
    except ValueError as error:
        raise RecipeError(recipe.subject, [Fault(WHERE, str(error))]) from error
    left: dict[int, str] = {}
    if window.unfinished == LEAVE_OUT:
        told = {step: places.unready(reference) for step, reference in known.items()}
        left = {step: why for step, why in told.items() if why is not None}
        known = {step: reference for step, reference in known.items() if step not in left}
        if not known:
            step, why = max(left.items())
            problem = f"has no step with whole weights; the newest, {step}: {why}"
            raise RecipeError(recipe.subject, [Fault(WHERE, problem)])
    try:
        recipe = with_steps(recipe, known)
    except RecipeError as error:
        if not left:
            raise
        beside = f"; left out, for they have no whole weights: {', '.join(map(str, sorted(left)))}"
        faults = [dataclasses.replace(e, problem=e.problem + beside) for e in error.faults]
        raise RecipeError(recipe.subject, faults) from error
    if window.unfinished != LEAVE_OUT:
        _refuse_unready(recipe, places)
    return recipe


def _refuse_unready(recipe: Recipe, places: RunPlaces) -> None:
    assert recipe.window is not None
    faults = [
        Fault(
            WHERE,
            f"step {step} ('{reference}') has no whole weights: {why}. Wait until it is written, or"
            f" say `unfinished: {LEAVE_OUT}`",
        )
        for step, reference in recipe.window.found
        if (why := places.unready(reference)) is not None
    ]
    if faults:
        raise RecipeError(recipe.subject, faults)


def steps_of_run(
    run: str | tuple[str, ...] | Mapping[int, str], named: tuple[int, ...], places: RunPlaces
) -> Mapping[int, str]:
    """Return every step of a run that can be told, with its reference.

    `named` are the steps that are known where a place cannot be listed. Raises ValueError with what
    is wrong with the run.
    """
    if isinstance(run, tuple):
        return steps_of_references(run, "the list")
    if not isinstance(run, str):
        return run
    if STEP in run:
        return _of_pattern(run, named, places)
    names = places.names_in(run)
    if names is None:
        problem = f"is '{run}', whose steps cannot be listed; write where their number stands, as"
        raise ValueError(f"{problem} '{run}@step{STEP}', and name `steps`")
    found = steps_in(names, run)
    if not found:
        known = ", ".join(sorted(names)[:12]) or "nothing"
        problem = f"is '{run}', which has no sub-folder named as a step (checkpoint-1000,"
        raise ValueError(f"{problem} step_2000, iter_0003000, 4000); it has {known}")
    folder = run.rstrip("/") or "/"
    return {step: f"{folder}/{name}" for step, name in found.items()}


def _of_pattern(pattern: str, steps: tuple[int, ...], places: RunPlaces) -> Mapping[int, str]:
    """The steps whose references a pattern gives: of its folder, or those that are named."""
    before, _, behind = pattern.partition(STEP)
    folder, slash, start = before.rpartition("/")
    end, deeper, below = behind.partition("/")
    if "@" in start:
        repository, _, start = f"{folder}{slash}{start}".partition("@")
        folder, slash = repository, "@"
        listed = None if steps else places.revisions_of(repository)
    else:
        listed = places.names_in(folder if slash and folder else (slash or "."))
    if listed is None:
        if not steps:
            problem = f"is '{pattern}', whose steps cannot be listed; name them as `steps`"
            raise ValueError(f"{problem} (or list the references)")
        return {step: f"{before}{step}{behind}" for step in steps}
    found = steps_of_pattern(listed, f"{start}{STEP}{end}", pattern)
    if not found:
        told = ", ".join(sorted(listed)[:12]) or "nothing"
        hint = any(step_of(name) is not None for name in listed)
        also = "; leave the pattern out to have them read by their names" if hint else ""
        raise ValueError(f"is '{pattern}', which fits none of the names there ({told}){also}")
    return {step: f"{folder}{slash}{name}{deeper}{below}" for step, name in found.items()}
