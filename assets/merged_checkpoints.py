"""merged_checkpoint/<recipe>: every expert set at every coefficient of one recipe."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from blake3 import blake3

from assets.display import of_artifact, of_masks, of_work, table
from assets.failures import RETRY_CRASHES, clear_failures, stop_if_run_is_over
from assets.grid import group_by_set
from assets.progress_log import log_progress
from assets.run_settings import RunSettings
from assets.work.emr_masking import point_at_masks
from assets.work.merging import CHECKPOINT, MergedSet, merge_set
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.stages import Stages


@dataclass(frozen=True)
class MergeRecipe:
    """A recipe as the assets use it: its base model, and how its partitions hang together.

    `stages` end with the recipe and begin with those whose results it uses. `deps` are the assets
    that its expert sets, and what else it names, come from. `code_version` changes with whatever in
    the recipe changes every merge; the sweep and the sets, which are partitions, do not count.
    """

    stages: Stages
    base: str
    grid: dg.MultiPartitionsDefinition
    deps: Sequence[dg.AssetDep]
    licences: Mapping[str, str | None]
    code_version: str

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.stages.result

    @property
    def name(self) -> str:
        """The recipe's name, which is also its group's."""
        return self.recipe.name

    @property
    def key(self) -> dg.AssetKey:
        """Key of the merged checkpoints."""
        return dg.AssetKey(["merged_checkpoint", self.name])


def build_merged_checkpoint(
    merge: MergeRecipe, condition: dg.AutomationCondition, op_tags: Mapping[str, Any]
) -> dg.AssetsDefinition:
    """The asset of one recipe. One run may hold many points: inputs are read once for each set."""

    @dg.asset(
        key=merge.key,
        deps=merge.deps,
        partitions_def=merge.grid,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=merge.name,
        automation_condition=condition,
        code_version=merge.code_version,
        retry_policy=RETRY_CRASHES,
        pool="gpu",
        op_tags=dict(op_tags),
        kinds={"pytorch"},
        description=f"Merged checkpoints: experts merged by {merge.recipe.merge_method}, as recipe"
        f" {merge.name} says. Published under the digest of the plan: what is in the store is not"
        " merged again.",
    )
    @clear_failures()
    def merged_checkpoint(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, merged_sets = settings.store(), []
        for expert_set, points in group_by_set(context.partition_keys).items():
            merged = merge_set(
                store, merge.stages, merge.base, expert_set, list(points),
                settings.stream(), merge.licences, log_progress(context.log, expert_set),
                _name(merge), {each: str(key) for each, key in points.items()},
            )  # fmt: skip
            stop_if_run_is_over(context)
            for each in merged.checkpoints:
                key, artifact = points[each.coefficient], each.artifact
                store.point(
                    _name(merge), str(key), CHECKPOINT, artifact.digest, run=context.run.run_id
                )
                shown = of_artifact(artifact, each.memoized) | of_masks(merged.masks)
                context.add_asset_metadata(shown, partition_key=key)
            point_at_masks(store, merge.key.path, expert_set, merged.masks, context.run.run_id)
            context.log.info(_sentence(merged))
            merged_sets.append(merged)
        return dg.MaterializeResult(
            data_version=data_version(merge.code_version, merged_sets),
            metadata=_metadata(merged_sets),
        )

    return merged_checkpoint


def _name(merge: MergeRecipe) -> str:
    return "/".join(merge.key.path)


def data_version(code_version: str, merged: Sequence[MergedSet]) -> dg.DataVersion:
    """What a run's sets were merged from: the recipe but for its sweep, and the inputs' digests.

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
    return {"of this run": table(rows), **of_work(seconds, moved)}


def _sentence(merged: MergedSet) -> str:
    made = sum(not each.memoized for each in merged.checkpoints)
    return (
        f"{merged.expert_set}: {made} checkpoints merged in {merged.seconds:.2f} s"
        f" ({merged.megabytes_per_second:.0f} MB/s; {merged.reused} of {merged.tensors} tensors"
        f" copied from the earlier ones; resumed: {merged.resumed} of {merged.tensors} tensors),"
        f" {len(merged.checkpoints) - made} found"
    )
