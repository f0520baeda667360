"""merge_plan: may these experts be merged, and what will they do to each other?"""

from collections.abc import Mapping, Sequence

import dagster as dg

from assets.display import of_artifact, picture, table
from assets.failures import RETRY_CRASHES, clear_failures
from assets.run_settings import RunSettings
from assets.work.studying import MERGE_PLAN, study_set


def build_merge_plan(
    base_of: Mapping[str, str],
    partitions: dg.PartitionsDefinition,
    from_expert: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """The asset `merge_plan`, one partition for each set; `base_of` maps a set to its base."""

    @dg.asset(
        name=MERGE_PLAN,
        deps=[dg.AssetDep("task_vector", partition_mapping=from_expert)],
        partitions_def=partitions,
        group_name="merge_plans",
        automation_condition=condition,
        retry_policy=RETRY_CRASHES,
        kinds={"numpy"},
        description="An expert set, checked from headers before any merge: names, shapes,"
        " vocabularies. Cosine and sign conflict between the task vectors, and what a merge reads."
        " A mismatch stops everything that merges this set.",
    )
    @clear_failures()
    def merge_plan(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from eval_ops.plots import heatmap

        expert_set = context.partition_key
        study = study_set(settings.store(), base_of[expert_set], expert_set, context.run.run_id)
        seen = study.found["interference"]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(study.artifact.digest),
            metadata={
                **of_artifact(study.artifact, study.memoized),
                "base": base_of[expert_set],
                "interference": picture(
                    heatmap(seen["names"], seen["cosine"], seen["sign_conflict"])
                ),
                "pairs": table(_pairs(seen)),
                "warnings": "\n".join(study.found["warnings"]) or "none",
                "bytes read by one merge": study.found["bytes_read"],
                "bytes of one output": study.found["bytes_of_one_output"],
            },
        )

    return merge_plan


def build_merge_plan_subset(
    recipe: str,
    partitions: dg.PartitionsDefinition,
    restriction: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """`merge_plan_subset/<recipe>`: the plans of those sets that the recipe merges, by reference.

    Dagster maps a set into a two-dimensional grid only when the grid has exactly the same sets; a
    recipe that merges fewer (slerp: pairs) is joined through this.
    """

    @dg.asset(
        key=["merge_plan_subset", recipe],
        deps=[dg.AssetDep(MERGE_PLAN, partition_mapping=restriction)],
        partitions_def=partitions,
        group_name=recipe,
        automation_condition=condition,
        retry_policy=RETRY_CRASHES,
        description=f"Merge plans of the sets that recipe {recipe} merges, by reference.",
    )
    @clear_failures()
    def merge_plan_subset(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        artifact = settings.store().resolve(MERGE_PLAN, context.partition_key)
        if artifact is None:
            message = f"merge_plan[{context.partition_key}] is missing; materialize it first"
            raise dg.Failure(message, allow_retries=False)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(artifact.digest), metadata=of_artifact(artifact, True)
        )

    return merge_plan_subset


def _pairs(seen: Mapping[str, Sequence]) -> list[dict[str, object]]:
    """One row for each two experts: cosine and sign conflict of their task vectors."""
    names = seen["names"]
    return [
        {
            "experts": f"{names[j]} + {names[i]}",
            "cosine": round(seen["cosine"][i][j], 5),
            "sign conflict": round(seen["sign_conflict"][i][j], 5),
        }
        for i in range(len(names))
        for j in range(i)
    ]
