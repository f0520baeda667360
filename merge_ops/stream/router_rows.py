"""Rows of routers, read before a merge: what its own are fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.sources.fused_layouts import is_router, router_of
from merge_ops.stream.block_reader import read_values

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
    from merge_ops.plans.plan import Plan
    from merge_ops.recipes.recipe import Recipe

    Rows = dict[int, NDArray[np.float32]]


def merged_rows(plan: Plan) -> dict[str, Rows]:
    """Read the rows of each router that is merged, (moe_experts, hidden), and return them.

    They are by the names of the models that are merged, and by layer.
    """
    pattern = router_of(plan.base.config)
    groups = {place.name: place.group for place in plan.arrangement.places}
    found: dict[str, Rows] = {}
    for step in (each.planned for each in plan.steps):
        name, group = step.output.name, groups[step.output.name]
        layer = layer_of(name)
        if step.action != "merge" or group is None or pattern is None or layer is None:
            continue
        if is_router(pattern, name):
            for model, source in zip(group.inputs, step.inputs, strict=True):
                found.setdefault(model.name, {})[layer[1]] = _values(source)
    return found


def fewer_rows(
    recipe: Recipe, models: Mapping[str, Checkpoint], statistics: MoeStatistics | None
) -> tuple[Rows, Mapping[int, list[list[int]]]]:
    """Read a mixture's rows by layer, and return them with the moe_experts that become one.

    `statistics` are those of the step's texts; a file that it names is read.
    """
    from merge_ops.arrangement.mixtures.fewer_experts import fewer_groups
    from merge_ops.calibration.moe_statistics import read_moe_statistics

    step = recipe.fewer
    assert step is not None  # of its kind
    if step.statistics is not None:
        statistics = read_moe_statistics(Path(step.statistics))
    assert statistics is not None  # measured on the texts before
    groups, routers = fewer_groups(models[recipe.models[0].model], step, statistics)
    members = {
        layer: [sorted(member for member, _ in group) for group in each]
        for layer, each in groups.items()
    }
    return {layer: _values(router) for layer, router in routers.items()}, members


def _values(source: TensorSource) -> NDArray[np.float32]:
    return read_values(source, 0, prod(source.shape)).numpy().reshape(source.shape)
