"""Parameters of methods that measure the whole model: one for all of its tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from merge_ops.errors import Fault, RecipeError
from merge_ops.plans.steps import Copy, Merge
from merge_ops.recipes.recipe import Recipe


def check_one_for_all(recipe: Recipe, steps: Sequence[Merge | Copy]) -> None:
    """Raise RecipeError where a method measures the model and its parameters differ by tensor."""
    wide = recipe.method.model_wide
    merged = [step for step in steps if isinstance(step, Merge)]
    if wide is None:
        return
    faults: list[Fault] = []
    for coefficient in range(len(merged[0].parameters) if merged else 0):
        if not any(wide.asked(step.parameters[coefficient]) for step in merged):
            continue
        first = merged[0]
        models = [source.model for source in first.inputs]
        if any([source.model for source in step.inputs] != models for step in merged):
            problem = "is over the whole model, and the slices merge different experts; with"
            faults.append(Fault(wide.setting, f"{problem} it all must list the same, in order"))
        for name in wide.same:
            expected = getattr(first.parameters[coefficient], name)
            for step in merged:
                given = getattr(step.parameters[coefficient], name)
                if given != expected:
                    problem = (
                        f"is {_shown(expected)} for '{first.output.name}' and {_shown(given)} for"
                        f" '{step.output.name}'; with `{wide.setting}` it must be one for all"
                        " tensors: take out its filters and gradients"
                    )
                    faults.append(Fault(f"parameters.{name}", problem))
                    break
    if faults:
        raise RecipeError(recipe.subject, sorted(set(faults)))


def _shown(value: Any) -> str:
    values = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
    return ", ".join(map(str, values))
