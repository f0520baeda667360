"""<recipe>/window: which steps of a training run each window takes, with which weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from assets.frame.batches import Report, each_partition
from assets.frame.display import of_artifact, table
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.work import names
from assets.work.upstream.training_runs import StudiedWindow, study_window
from merge_ops.recipes import Coefficient, Recipe

LONGEST = 200
"""Rows of a window's table: Dagster keeps each event, and reads it whole."""


@dataclass(frozen=True)
class RunWindow:
    """The windows of one document; `asset` names them, `recipe` is the file's.

    `partitions` are those of what they are made into.
    """

    recipe: str
    document: Recipe
    asset: str
    partitions: dg.PartitionsDefinition

    def point_of(self, partition: str) -> Coefficient:
        """Return the coefficient of one partition."""
        points = {each.id: each for each in self.document.coefficients()}
        return points.get(partition.partition("|")[0]) or next(iter(points.values()))


def build_run_window(window: RunWindow, condition: dg.AutomationCondition) -> dg.AssetsDefinition:
    """Build the windows of one document: a partition runs what comes after where it has changed."""

    @team_asset(
        window.asset,
        condition,
        deps=[dg.AssetDep(names.RUN_STEP, partition_mapping=dg.AllPartitionMapping())],
        partitions=window.partitions,
        group=window.recipe,
        one_run=True,
        description=f"Windows over a training run, of recipe {window.recipe}: the steps that each"
        " takes, and their weights. A new step changes those that hold it, and these alone are made"
        " again.",
    )
    def run_window(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, run = settings.store(), context.run.run_id

        def study(partition: str) -> Report:
            point = window.point_of(str(partition))
            found = study_window(store, window.document, point, window.asset, str(partition), run)
            return found.artifact.digest, {
                **of_artifact(found.artifact, found.memoized),
                "newest step": found.rows[-1]["step"],
                "steps": table(_rows(found)),
            }

        return each_partition(context, study)

    return run_window


def _rows(window: StudiedWindow) -> Sequence[dict[str, object]]:
    newest = [dict(each) for each in reversed(window.rows)][:LONGEST]
    return [{key: each[key] for key in ("step", "weight", "digest")} for each in newest]
