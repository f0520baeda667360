"""<recipe>/step/<name>: what the earlier steps of a recipe's file make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg

from assets.checks import report_checks
from assets.frame.batches import Report, each_partition
from assets.frame.display import of_artifact, of_masks, of_work
from assets.frame.failures import stop_if_run_is_over
from assets.frame.progress_log import log_progress
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.merged_checkpoints import data_version
from assets.withdrawal_checks import check_partitions, check_whole, spec
from assets.work import names
from assets.work.merging.merging import MergedSet, MergeJob, point_at
from assets.work.records.noted_merges import merge_noted
from merge_ops.recipes import Steps


@dataclass(frozen=True)
class RecipeStep:
    """An earlier step of the file `recipe`; `steps` end with it.

    It has the partitions of the expert sets where it takes experts, itself or through steps that
    it uses, and otherwise none. There are no coefficients: a sweep is the last step's.
    """

    recipe: str
    steps: Steps
    base: str
    sets: dg.StaticPartitionsDefinition | None
    deps: Sequence[dg.AssetDep]
    licences: Mapping[str, str | None]
    code_version: str

    @property
    def asset(self) -> str:
        """Name of what the step makes."""
        return names.step(self.recipe, self.steps.result.name)

    @property
    def key(self) -> dg.AssetKey:
        """Key of what the step makes."""
        return dg.AssetKey.from_user_string(self.asset)

    def job(self, partition: str | None) -> MergeJob:
        """Describe what a run of one partition merges (None: the step has no partitions)."""
        points = {"default": partition}
        return MergeJob(self.steps, self.base, partition or "", points, self.asset, self.licences)


def build_recipe_step(
    step: RecipeStep, condition: dg.AutomationCondition, op_tags: Mapping[str, Any]
) -> dg.AssetsDefinition:
    """Build the asset of one step."""
    recipe = step.steps.result

    @team_asset(
        step.asset,
        condition,
        deps=step.deps,
        partitions=step.sets,
        group=step.recipe,
        code_version=step.code_version,
        gpu=op_tags,
        one_run=step.sets is not None,
        kind="pytorch",
        checks=[spec(step.asset, step.sets)],
        description=f"An intermediate checkpoint of recipe {step.recipe}: step {recipe.name},"
        f" merged by {recipe.merge_method}. Published under the digest of its plan: what is in the"
        " store is not merged again.",
    )
    def recipe_step(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, run = settings.store(), context.run.run_id

        def make(partition: str | None) -> Report:
            job, progress = step.job(partition), log_progress(context.log, partition or step.asset)
            merged = merge_noted(store, job, settings.stream(), progress, run, context.log.warning)
            stop_if_run_is_over(context)
            point_at(store, job, merged, run)
            version = data_version(step.code_version, merged, merged.checkpoints[0])
            return version, _metadata(merged)

        if step.sets is not None:
            look = partial(report_checks, context, settings, step.key)
            check = partial(check_partitions, context, settings)
            return each_partition(context, make, look, check)
        version, shown = make(None)
        checks = [check_whole(store, step.asset)]
        version = dg.DataVersion(version)
        return dg.MaterializeResult(data_version=version, metadata=shown, check_results=checks)

    return recipe_step


def _metadata(merged: MergedSet) -> dict[str, Any]:
    (point,) = merged.checkpoints
    return {
        **of_artifact(point.artifact, point.memoized),
        **of_masks(merged.masks),
        "tensors reused": merged.reused,
        "tensors resumed": merged.resumed,
        **of_work(merged.seconds, merged.bytes_read + merged.bytes_written),
    }
