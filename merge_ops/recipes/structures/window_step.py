"""A step that averages a stretch of one training run: `window:`, a sugar over `linear`.

    window: {run: ./run, last: 4, weights: one_minus_sqrt}
    window: {run: "owner/name@step{step}", steps: [1000, 2000, 3000]}
    window: {run: ./run}           sweep: {last: [2, 4, 8], weights: [uniform, cosine]}

`run` is a folder with a sub-folder for each step, a reference with `{step}` in it, a list of
references whose names end in their steps, or a mapping of step to reference. Its steps are found
when the recipe is planned (`with_steps`); then the recipe is a `linear` one of these models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.structures.window_weights import EMA, UNIFORM, of_sum_one, schedule_weights

if TYPE_CHECKING:
    from merge_ops.recipes.recipe import Recipe

WINDOW, METHOD = "window", "linear"
STEP = "{step}"
LEAVE_OUT, REFUSE = "leave_out", "refuse"
"""What becomes of steps that have no whole weights."""
SWEPT = ("last", "every", "weights", "beta")
"""Keys of a window that a sweep may have: its windows are made from one read of the steps."""


@dataclass(frozen=True)
class WindowStep:
    """A window is a stretch of a training run, and the weights of its steps.

    Of the run's steps those count that are multiples of `every`, and of these the `last` newest, or
    just the `steps` that are named. `weights` is a schedule's name, or a number for each step, in
    the order of `steps`, of a `run` that is a list or mapping, or else from the oldest to the
    newest. `found` holds the steps of the run that any coefficient takes, rising, each with its
    reference; it is empty before `with_steps`.
    """

    run: str | tuple[str, ...] | Mapping[int, str]
    last: int | None = None
    steps: tuple[int, ...] = ()
    every: int | None = None
    weights: str | tuple[float, ...] = UNIFORM
    beta: float | None = None
    unfinished: str = REFUSE
    found: tuple[tuple[int, str], ...] = ()

    @property
    def written(self) -> dict[str, Any]:
        """Return the step as a recipe says it."""
        told: dict[str, Any] = {"run": self.run}
        if isinstance(self.run, tuple):
            told["run"] = list(self.run)
        elif not isinstance(self.run, str):
            told["run"] = dict(self.run)
        told |= {"last": self.last} if self.last is not None else {}
        told |= {"steps": list(self.steps)} if self.steps else {}
        told |= {"every": self.every} if self.every is not None else {}
        weights = self.weights if isinstance(self.weights, str) else list(self.weights)
        told |= {"weights": weights} if weights != UNIFORM else {}
        told |= {"beta": self.beta} if self.beta is not None else {}
        told |= {"unfinished": self.unfinished} if self.unfinished != REFUSE else {}
        return {WINDOW: told}

    def at(self, values: Mapping[str, Any]) -> WindowStep:
        """Return the window of one coefficient, whose values stand before its own."""
        own = {key: value for key, value in values.items() if key in SWEPT}
        return dataclasses.replace(self, **own) if own else self

    def chosen(self, known: Sequence[int]) -> tuple[int, ...]:
        """Return which of the steps that are known the window takes, rising.

        Raises ValueError where it asks for some that are not there.
        """
        rising = sorted(known)
        if self.steps:
            missing = sorted(set(self.steps) - set(rising))
            if missing:
                told = ", ".join(map(str, missing))
                raise ValueError(f"lacks step {told}; the run has {steps_text(rising)}")
            return tuple(sorted(self.steps))
        if self.every is not None:
            rising = [step for step in rising if step % self.every == 0]
        if self.last is not None:
            if len(rising) < self.last:
                of = f" that are multiples of {self.every}" if self.every else ""
                told = f"{len(rising)} step(s){of} ({steps_text(rising)})"
                raise ValueError(f"asks for the last {self.last}, and the run has {told}")
            rising = rising[-self.last :]
        if not rising:
            raise ValueError(f"takes none of the run's steps ({steps_text(sorted(known))})")
        return tuple(rising)

    def weights_of(self, chosen: Sequence[int]) -> tuple[float, ...]:
        """Return the weight of each chosen step; `chosen` rises.

        Raises ValueError where the recipe lists weights for more or fewer steps.
        """
        if isinstance(self.weights, str):
            return schedule_weights(self.weights, chosen, self.beta or 0.0)
        if len(self.weights) != len(chosen):
            told = f"has {len(self.weights)} weights for {len(chosen)} steps"
            raise ValueError(f"{told} ({steps_text(chosen)})")
        by_step = dict(zip(self._written_order(chosen), of_sum_one(self.weights), strict=True))
        return tuple(by_step[step] for step in chosen)

    def _written_order(self, chosen: Sequence[int]) -> Sequence[int]:
        """The chosen steps in the order in which their weights are written."""
        if self.steps:
            return self.steps
        if isinstance(self.run, tuple):
            references = {reference: step for step, reference in self.found}
            return [references[each] for each in self.run if references.get(each) in chosen]
        if not isinstance(self.run, str):
            return [step for step in self.run if step in chosen]
        return chosen

    def shares(self, values: Mapping[str, Any]) -> Mapping[str, float]:
        """Return the weight of every model of the window at one coefficient; others have zero."""
        return {reference: share for _, reference, share in self.rows(values)}

    def rows(self, values: Mapping[str, Any]) -> list[tuple[int, str, float]]:
        """Return step, reference and weight of each step that one coefficient takes, rising."""
        window = self.at(values)
        chosen = window.chosen([step for step, _ in self.found])
        references = dict(self.found)
        weights = window.weights_of(chosen)
        return [(s, references[s], c) for s, c in zip(chosen, weights, strict=True)]

    def renamed(self, names: Mapping[str, str]) -> WindowStep:
        """Return the window with some references under other names."""

        def name(reference: str) -> str:
            return names.get(reference, reference)

        run = self.run
        if isinstance(run, tuple):
            run = tuple(map(name, run))
        elif not isinstance(run, str):
            run = {step: name(reference) for step, reference in run.items()}
        found = tuple((step, name(reference)) for step, reference in self.found)
        return dataclasses.replace(self, run=run, found=found)


def with_steps(recipe: Recipe, known: Mapping[int, str]) -> Recipe:
    """Return a recipe whose window knows its steps, as a `linear` one of these models.

    `known` are the steps of the run, each with the reference of its model. The newest step comes
    first: it gives config and tokenizer. Raises RecipeError where the window asks for steps that
    the run does not have.
    """
    from merge_ops.recipes.recipe import ModelEntry

    window = recipe.window
    assert window is not None  # whoever calls this has looked
    window = dataclasses.replace(window, found=tuple(sorted(known.items())))
    taken: set[int] = set()
    faults: dict[Fault, None] = {}
    for point in recipe.coefficients():
        at = window.at(point.values)
        try:
            chosen = at.chosen(list(known))
            at.weights_of(chosen)
        except ValueError as error:
            where = f"sweep, {point.id}" if recipe.sweep else WINDOW
            faults[Fault(where, str(error))] = None
            continue
        taken.update(chosen)
    if faults:
        raise RecipeError(recipe.subject, list(faults))
    newest = {max(at_point) for at_point in _windows(recipe, window, list(known))}
    if len(newest) > 1:
        told = ", ".join(map(str, sorted(newest)))
        problem = f"gives windows that end at different steps ({told}), whose config and tokenizer"
        problem += " come from the newest; write a recipe for each"
        raise RecipeError(recipe.subject, [Fault("sweep", problem)])
    found = tuple((step, known[step]) for step in sorted(taken))
    models = tuple(ModelEntry(reference) for _, reference in reversed(found))
    return dataclasses.replace(
        recipe, models=models, window=dataclasses.replace(window, found=found)
    )


def fixed(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the plain `linear` recipe of one coefficient of a window whose steps are known."""
    from merge_ops.recipes.recipe import ModelEntry

    window = recipe.window
    assert window is not None
    rows = reversed(window.rows(values))
    models = tuple(ModelEntry(reference, {"weight": share}) for _, reference, share in rows)
    return dataclasses.replace(recipe, models=models, window=None, sweep={})


def steps_text(steps: Sequence[int]) -> str:
    """Return steps in words: all of a few, else the first and the last of many."""
    if not steps:
        return "none"
    if len(steps) <= 12:
        return ", ".join(map(str, steps))
    return f"{steps[0]}, {steps[1]}, … {steps[-1]}: {len(steps)} in all"


def needs_beta(window: Mapping[str, Any], sweep: Mapping[str, Any]) -> bool:
    """Return whether a document's window is an `ema` at some coefficient."""
    swept = sweep.get("weights")
    return window.get("weights") == EMA or (isinstance(swept, list) and EMA in swept)


def _windows(recipe: Recipe, window: WindowStep, known: Sequence[int]) -> list[tuple[int, ...]]:
    return [window.at(point.values).chosen(known) for point in recipe.coefficients()]
