"""The model of a `moe:` step, with fewer moe_experts in each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.errors import Caution, CompatibilityError
from merge_ops.recipes.recipe import Recipe

if TYPE_CHECKING:  # few recipes have such a step, and starting is counted
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.checkpoints.checkpoint import Checkpoint

    Rows = Mapping[int, NDArray[np.float32]]


def with_fewer(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    statistics: MoeStatistics | None = None,
    rows: Rows | None = None,
) -> tuple[Mapping[str, Checkpoint], tuple[Caution, ...]]:
    """Return the checkpoints with the recipe's mixture made smaller, and what to look at.

    Those of other recipes are returned as they are. `statistics` are those of the step's texts, and
    `rows` what its routers were fitted to; without them the plan can be shown, not merged. Raises
    CompatibilityError with all that does not fit, and what reading the file of statistics raises.
    """
    step = recipe.fewer
    if step is None:
        return checkpoints, ()
    from merge_ops.arrangement.mixtures.fewer_experts import fewer
    from merge_ops.calibration.moe_statistics import read_moe_statistics

    name = recipe.models[0].model
    if step.statistics is not None:
        statistics = read_moe_statistics(Path(step.statistics))
    made, cautions, faults = fewer(checkpoints[name], step, statistics, rows, recipe.subject)
    if faults:
        raise CompatibilityError(recipe.subject, faults)
    return {**checkpoints, name: made}, cautions
