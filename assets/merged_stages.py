"""merged_stage/<recipe>/<name>: what the earlier documents of a recipe's file make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.display import of_artifact, of_masks, of_work
from assets.failures import RETRY_CRASHES, clear_failures, stop_if_run_is_over
from assets.merged_checkpoints import data_version
from assets.progress_log import log_progress
from assets.run_settings import RunSettings
from assets.work.emr_masking import point_at_masks
from assets.work.merging import CHECKPOINT, merge_set
from merge_ops.recipes.stages import Stages


@dataclass(frozen=True)
class MergeStage:
    """An earlier document of the file `recipe`; `stages` end with it.

    It has the partitions of the expert sets where it takes experts, itself or through stages that
    it uses, and otherwise none. There are no coefficients: a sweep is the last document's.
    """

    recipe: str
    stages: Stages
    base: str
    sets: dg.StaticPartitionsDefinition | None
    deps: Sequence[dg.AssetDep]
    licences: Mapping[str, str | None]
    code_version: str

    @property
    def name(self) -> str:
        """The document's name."""
        return self.stages.result.name

    @property
    def key(self) -> dg.AssetKey:
        """Key of what the stage makes."""
        return stage_key(self.recipe, self.name)


def stage_key(recipe: str, name: str) -> dg.AssetKey:
    """Key of what a document of a recipe's file makes."""
    return dg.AssetKey(["merged_stage", recipe, name])


def build_merged_stage(
    stage: MergeStage, condition: dg.AutomationCondition, op_tags: Mapping[str, Any]
) -> dg.AssetsDefinition:
    """The asset of one stage."""
    recipe = stage.stages.result

    @dg.asset(
        key=stage.key,
        deps=stage.deps,
        partitions_def=stage.sets,
        group_name=stage.recipe,
        automation_condition=condition,
        code_version=stage.code_version,
        retry_policy=RETRY_CRASHES,
        pool="gpu",
        op_tags=dict(op_tags),
        kinds={"pytorch"},
        description=f"An intermediate checkpoint of recipe {stage.recipe}: document {stage.name},"
        f" merged by {recipe.merge_method}. Published under the digest of its plan: what is in the"
        " store is not merged again.",
    )
    @clear_failures()
    def merged_stage(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, name = settings.store(), "/".join(stage.key.path)
        partition = context.partition_key if stage.sets else None
        merged = merge_set(
            store, stage.stages, stage.base, partition or "", ["default"], settings.stream(),
            stage.licences, log_progress(context.log, partition or name), name,
            {"default": partition},
        )  # fmt: skip
        stop_if_run_is_over(context)
        (point,) = merged.checkpoints
        digest, run = point.artifact.digest, context.run.run_id
        store.point(name, partition, CHECKPOINT, digest, run=run)
        point_at_masks(store, stage.key.path, partition, merged.masks, run)
        return dg.MaterializeResult(
            data_version=data_version(stage.code_version, [merged]),
            metadata={
                **of_artifact(point.artifact, point.memoized),
                **of_masks(merged.masks),
                "tensors reused": merged.reused,
                "tensors resumed": merged.resumed,
                **of_work(merged.seconds, merged.bytes_read + merged.bytes_written),
            },
        )

    return merged_stage
