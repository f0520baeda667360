"""<recipe>/merged_checkpoint: every expert set at every coefficient of one recipe."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from blake3 import blake3

from assets.display import of_artifact, of_masks, of_work, table
from assets.failures import stop_if_run_is_over
from assets.grid import group_by_set
from assets.progress_log import log_progress
from assets.run_settings import RunSettings
from assets.team_asset import team_asset
from assets.work import names
from assets.work.merging import MergedSet, MergeJob, merge_set, point_at
from merge_ops.errors import shown
from merge_ops.recipes import Recipe, Steps


@dataclass(frozen=True)
class MergeRecipe:
    """A merge recipe tells the assets its base model, and how its partitions hang together.

    `steps` end with the recipe and begin with those whose results it uses. `deps` are the assets
    that its expert sets, and what else it names, come from. `code_version` changes with whatever in
    the recipe changes every merge; the sweep and the sets, which are partitions, do not count.
    """

    steps: Steps
    base: str
    grid: dg.MultiPartitionsDefinition
    deps: Sequence[dg.AssetDep]
    licences: Mapping[str, str | None]
    code_version: str

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.steps.result

    @property
    def name(self) -> str:
        """The recipe's name, which is also its group's."""
        return self.recipe.name

    @property
    def asset(self) -> str:
        """Name of the merged checkpoints."""
        return names.merged_checkpoint(self.name)

    @property
    def key(self) -> dg.AssetKey:
        """Key of the merged checkpoints."""
        return dg.AssetKey.from_user_string(self.asset)

    def job(self, expert_set: str, points: Mapping[str, str]) -> MergeJob:
        """Describe what a run merges for one set; `points` are partition keys by coefficient."""
        keys = {coefficient: str(key) for coefficient, key in points.items()}
        return MergeJob(self.steps, self.base, expert_set, keys, self.asset, self.licences)


def build_merged_checkpoint(
    merge: MergeRecipe, condition: dg.AutomationCondition, op_tags: Mapping[str, Any]
) -> dg.AssetsDefinition:
    """Build the asset of one recipe. A run may hold many points; it reads a set's inputs once."""

    @team_asset(
        merge.asset,
        condition,
        deps=merge.deps,
        partitions=merge.grid,
        group=merge.name,
        code_version=merge.code_version,
        gpu=op_tags,
        one_run=True,
        kind="pytorch",
        description=f"Merged checkpoints: experts merged by {merge.recipe.merge_method}, as recipe"
        f" {merge.name} says. Published under the digest of the plan: what is in the store is not"
        " merged again.",
    )
    def merged_checkpoint(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, merged_sets = settings.store(), []
        for expert_set, points in group_by_set(context.partition_keys).items():
            job, progress = merge.job(expert_set, points), log_progress(context.log, expert_set)
            merged = merge_set(store, job, settings.stream(), progress)
            stop_if_run_is_over(context)
            point_at(store, job, merged, context.run.run_id)
            _show(context, points, merged)
            merged_sets.append(merged)
        return dg.MaterializeResult(
            data_version=data_version(merge.code_version, merged_sets),
            metadata=_metadata(merged_sets),
        )

    return merged_checkpoint


def _show(
    context: dg.AssetExecutionContext,
    points: Mapping[str, dg.MultiPartitionKey],
    merged: MergedSet,
) -> None:
    """Tell Dagster of each checkpoint of one set, and its log of the whole set."""
    for checkpoint in merged.checkpoints:
        told = of_artifact(checkpoint.artifact, checkpoint.memoized) | of_masks(merged.masks)
        context.add_asset_metadata(told, partition_key=points[checkpoint.coefficient])
    for warning in merged.warnings:
        context.log.warning(f"{merged.expert_set}: {shown(warning)}")
    context.log.info(_sentence(merged))


def data_version(code_version: str, merged: Sequence[MergedSet]) -> dg.DataVersion:
    """Hash what a run's sets were merged from: the recipe without its sweep, and the inputs.

    Dagster takes one data version for a run. For a run of one set it is that set's own, whichever
    coefficients the run held; a run of several sets (a backfill of a whole grid) has one for all.
    """
    sets = sorted((each.expert_set, sorted(each.inputs.items())) for each in merged)
    identity = json.dumps([code_version, sets], ensure_ascii=False)
    return dg.DataVersion(blake3(identity.encode()).hexdigest())


def _metadata(merged: list[MergedSet]) -> dict[str, Any]:
    seconds = sum(each.seconds for each in merged)
    moved = sum(each.bytes_read + each.bytes_written for each in merged)
    rows = [
        {
            "experts": each.expert_set,
            "coefficient": point.coefficient,
            "memoized": point.memoized,
            "tensors reused": 0 if point.memoized else each.reused,
            "tensors resumed": 0 if point.memoized else each.resumed,
            "bytes": point.artifact.nbytes,
            "digest": point.artifact.digest[:12],
        }
        for each in merged
        for point in each.checkpoints
    ]
    warnings = dict.fromkeys(warning for each in merged for warning in each.warnings)
    told = {"warnings": "\n".join(warnings)} if warnings else {}
    return {"of this run": table(rows), **of_work(seconds, moved), **told}


def _sentence(merged: MergedSet) -> str:
    made = sum(not each.memoized for each in merged.checkpoints)
    return (
        f"{merged.expert_set}: {made} checkpoints merged in {merged.seconds:.2f} s"
        f" ({merged.megabytes_per_second:.0f} MB/s; {merged.reused} of {merged.tensors} tensors"
        f" copied from the earlier ones; resumed: {merged.resumed} of {merged.tensors} tensors),"
        f" {len(merged.checkpoints) - made} found"
    )
