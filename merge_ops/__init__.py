"""Merging models, as a library: numpy and safetensors, torch where a method or a GPU needs it.

Two folders are merged in four lines. A recipe names the models, here by their folders:

    >>> from merge_ops import load_recipe, merge, open_checkpoint, plan_merge
    >>> recipe = load_recipe("recipe.yaml").result
    >>> models = {name: open_checkpoint(name) for name in recipe.referenced_models}
    >>> report = merge(plan_merge(recipe, models), "merged")

`plan_merge` shows every fault before a weight is read. Errors are one tree under `RongheError`; see
`merge_ops.errors`. What is named here is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_ops.checkpoints.opening import open_checkpoint
    from merge_ops.errors import (
        CheckpointError,
        CompatibilityError,
        OutputError,
        RecipeError,
        RongheError,
    )
    from merge_ops.jobs.assembly import merge
    from merge_ops.plans.planning import plan_merge
    from merge_ops.recipes.steps import load_steps as load_recipe
    from merge_ops.stream.settings import StreamSettings

__all__ = [
    "CheckpointError",
    "CompatibilityError",
    "OutputError",
    "RecipeError",
    "RongheError",
    "StreamSettings",
    "load_recipe",
    "merge",
    "open_checkpoint",
    "plan_merge",
]

_PLACES = {
    "StreamSettings": ("merge_ops.stream.settings", "StreamSettings"),
    "load_recipe": ("merge_ops.recipes.steps", "load_steps"),
    "merge": ("merge_ops.jobs.assembly", "merge"),
    "open_checkpoint": ("merge_ops.checkpoints.opening", "open_checkpoint"),
    "plan_merge": ("merge_ops.plans.planning", "plan_merge"),
}


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for. Raises AttributeError for others."""
    if name not in __all__:
        raise AttributeError(f"module 'merge_ops' has no attribute {name!r}")
    module, attribute = _PLACES.get(name, ("merge_ops.errors", name))
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
