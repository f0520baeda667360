"""<recipe>/merge_plan: may these experts be merged, and what will they do to each other?"""

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.frame.batches import Report, each_partition
from assets.frame.display import drawn, listed, of_artifact, size, table, tell
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.work import names
from assets.work.merging.studying import TASK_VECTOR, Study, study_set

FEWEST_DRAWN = 3
"""Experts of the smallest set with a picture: a picture takes a third of a second."""

MOST_PAIRS = 200
"""Rows of the table of pairs, those of 20 experts: Dagster keeps each event, and reads it whole."""


def build_merge_plan(
    recipe: str,
    base: str,
    partitions: dg.PartitionsDefinition,
    from_expert: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """Build the plans of one recipe's expert sets, one partition for each; `base` is their base.

    Every recipe has its own, because Dagster maps a set into a grid only where both have exactly
    the same sets. Recipes that merge the same set share its study: the store has it once.
    """

    @team_asset(
        names.merge_plan(recipe),
        condition,
        deps=[dg.AssetDep(TASK_VECTOR, partition_mapping=from_expert)],
        partitions=partitions,
        group=recipe,
        one_run=True,
        kind="numpy",
        description=f"The expert sets of recipe {recipe}, checked from headers before any merge:"
        " names, shapes, vocabularies. Cosine and sign conflict between the task vectors, and what"
        " a merge reads. A mismatch stops everything that merges this set.",
    )
    def merge_plan(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, run = settings.store(), context.run.run_id

        def study(expert_set: str) -> Report:
            found = study_set(store, base, expert_set, run)
            if found.problem is not None:
                what = f"{names.merge_plan(recipe)} [{expert_set}]"
                tell(context.log, f"{what}: no interference: {found.problem}")
            return found.digest, _metadata(context.log, base, found)

        return each_partition(context, study)

    return merge_plan


def _metadata(log: dg.DagsterLogManager, base: str, study: Study) -> dict[str, Any]:
    if study.problem is not None:
        shown = of_artifact(study.artifact, study.memoized)
        return {**shown, "base": base, "interference": f"unknown: {study.problem}"}
    interference = study.findings["interference"]
    count = len(interference["names"])
    hidden = max(0, count * (count - 1) // 2 - MOST_PAIRS)
    return {
        **of_artifact(study.artifact, study.memoized),
        "base": base,
        **_drawn(log, interference),
        "pairs": table(_pairs(interference)),
        **({"pairs with less conflict, not shown": hidden} if hidden else {}),
        "warnings": listed(study.findings["warnings"]),
        "one merge reads": size(study.findings["bytes_read"]),
        "one output takes": size(study.findings["bytes_of_one_output"]),
    }


def _drawn(log: dg.DagsterLogManager, interference: Mapping[str, Sequence]) -> dict[str, Any]:
    """Draw the matrices of three experts and more; of two they are one row of the table."""
    from eval_ops.plots import heatmap

    of, pair = interference["names"], ("cosine", "sign_conflict")
    if len(of) < FEWEST_DRAWN:
        return {}
    matrices = [[[_nan(v) for v in row] for row in interference[each]] for each in pair]
    return {"interference": drawn(log, names.MERGE_PLAN, lambda: heatmap(of, *matrices))}


def _pairs(interference: Mapping[str, Sequence]) -> list[dict[str, object]]:
    """One row for each two experts: cosine and sign conflict of their task vectors.

    Of more than MOST_PAIRS those that conflict most, these first.
    """
    experts, conflict = interference["names"], interference["sign_conflict"]
    pairs = [(i, j) for i in range(len(experts)) for j in range(i)]
    if len(pairs) > MOST_PAIRS:
        pairs = heapq.nlargest(
            MOST_PAIRS, pairs, key=lambda pair: conflict[pair[0]][pair[1]] or 0.0
        )
    return [
        {
            "experts": f"{experts[j]} + {experts[i]}",
            "cosine": round(_nan(interference["cosine"][i][j]), 5),
            "sign conflict": round(_nan(interference["sign_conflict"][i][j]), 5),
        }
        for i, j in pairs
    ]


def _nan(value: float | None) -> float:
    """A number of a study, in which None stands for what is not finite."""
    return math.nan if value is None else value
