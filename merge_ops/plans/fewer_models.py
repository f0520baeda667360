"""The model of a `moe:` step, with fewer moe_experts in each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.errors import Caution, CompatibilityError
from merge_ops.recipes.recipe import Recipe

if TYPE_CHECKING:  # few recipes have such a step, and starting is counted
    from merge_ops.checkpoints.checkpoint import Checkpoint


def with_fewer(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint]
) -> tuple[Mapping[str, Checkpoint], tuple[Caution, ...]]:
    """Return the checkpoints with the recipe's mixture made smaller, and what to look at.

    Those of other recipes are returned as they are. Raises CompatibilityError with all that does
    not fit, and what reading the file of statistics raises.
    """
    step = recipe.fewer
    if step is None:
        return checkpoints, ()
    from merge_ops.arrangement.fewer_experts import fewer
    from merge_ops.calibration.moe_statistics import read_moe_statistics

    name = recipe.models[0].model
    statistics = read_moe_statistics(Path(step.statistics))
    made, cautions, faults = fewer(checkpoints[name], step, statistics)
    if faults:
        raise CompatibilityError(recipe.subject, faults)
    return {**checkpoints, name: made}, cautions
