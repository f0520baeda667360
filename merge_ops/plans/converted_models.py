"""The model of a `convert:` step, under another architecture's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from merge_ops.errors import CompatibilityError
from merge_ops.recipes.conversion_step import ARCHITECTURES, ONE_BY_ONE
from merge_ops.recipes.recipe import Recipe

if TYPE_CHECKING:
    from merge_ops.checkpoints.checkpoint import Checkpoint


def with_conversion(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> Mapping[str, Checkpoint]:
    """Return the checkpoints with the recipe's model converted; those of other recipes as they are.

    Raises CompatibilityError with every reason why the conversion would not be exact.
    """
    if recipe.conversion is None:
        return checkpoints
    from merge_ops.arrangement.conversion import conversion_faults, converted, relaid

    name = recipe.models[0].model
    model, target = checkpoints[name], recipe.conversion
    if target in ARCHITECTURES:
        faults = list(conversion_faults(model, target))
        made = model if faults else converted(model, target)
    else:
        made, faults = relaid(model, target == ONE_BY_ONE)
    if faults:
        raise CompatibilityError(f"{recipe.subject}: `convert: {target}` is not exact", faults)
    return {**checkpoints, name: made}
