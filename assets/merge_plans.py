"""merge_plan: may these experts be merged, and what will they do to each other?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.display import drawn, of_artifact, table
from assets.run_settings import RunSettings
from assets.team_asset import team_asset
from assets.work import names
from assets.work.studying import MERGE_PLAN, TASK_VECTOR, Study, study_set


def build_merge_plan(
    base_of: Mapping[str, str],
    partitions: dg.PartitionsDefinition,
    from_expert: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """Build the asset `merge_plan`, one partition for each set; `base_of` gives a set's base."""

    @team_asset(
        MERGE_PLAN,
        condition,
        deps=[dg.AssetDep(TASK_VECTOR, partition_mapping=from_expert)],
        partitions=partitions,
        group="merge_plans",
        kind="numpy",
        description="An expert set, checked from headers before any merge: names, shapes,"
        " vocabularies. Cosine and sign conflict between the task vectors, and what a merge reads."
        " A mismatch stops everything that merges this set.",
    )
    def merge_plan(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        expert_set = context.partition_key
        base = base_of[expert_set]
        study = study_set(settings.store(), base, expert_set, context.run.run_id)
        if study.problem is not None:
            context.log.error(f"{MERGE_PLAN} [{expert_set}]: no interference: {study.problem}")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(study.digest), metadata=_metadata(context.log, base, study)
        )

    return merge_plan


def build_merge_plan_subset(
    recipe: str,
    partitions: dg.PartitionsDefinition,
    restriction: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """Build `<recipe>/merge_plan_subset`: plans of the sets that the recipe merges, by reference.

    Dagster maps a set into a two-dimensional grid only when the grid has exactly the same sets; a
    recipe that merges fewer (slerp: pairs) is joined through this.
    """

    @team_asset(
        names.merge_plan_subset(recipe),
        condition,
        deps=[dg.AssetDep(MERGE_PLAN, partition_mapping=restriction)],
        partitions=partitions,
        group=recipe,
        description=f"Merge plans of the sets that recipe {recipe} merges, by reference.",
    )
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


def _metadata(log: dg.DagsterLogManager, base: str, study: Study) -> dict[str, Any]:
    from eval_ops.plots import heatmap

    if study.problem is not None:
        shown = of_artifact(study.artifact, study.memoized)
        return {**shown, "base": base, "interference": f"unknown: {study.problem}"}
    interference = study.findings["interference"]
    names_of, pair = interference["names"], ("cosine", "sign_conflict")
    matrices = [[[_nan(v) for v in row] for row in interference[each]] for each in pair]
    return {
        **of_artifact(study.artifact, study.memoized),
        "base": base,
        "interference": drawn(log, MERGE_PLAN, lambda: heatmap(names_of, *matrices)),
        "pairs": table(_pairs(interference)),
        "warnings": "\n".join(study.findings["warnings"]) or "none",
        "bytes read by one merge": study.findings["bytes_read"],
        "bytes of one output": study.findings["bytes_of_one_output"],
    }


def _pairs(interference: Mapping[str, Sequence]) -> list[dict[str, object]]:
    """One row for each two experts: cosine and sign conflict of their task vectors."""
    experts = interference["names"]
    return [
        {
            "experts": f"{experts[j]} + {experts[i]}",
            "cosine": round(_nan(interference["cosine"][i][j]), 5),
            "sign conflict": round(_nan(interference["sign_conflict"][i][j]), 5),
        }
        for i in range(len(experts))
        for j in range(i)
    ]


def _nan(value: float | None) -> float:
    """A number of a study, in which None stands for what is not finite."""
    return math.nan if value is None else value
