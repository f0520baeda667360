"""task_vector: what each expert learned, as expert − base."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.batches import Report, each_partition
from assets.frame.display import drawn, number, of_artifact, of_packing, table, tell
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.work.merging.studying import TASK_VECTOR, Study, study_task_vector
from assets.work.upstream.packed_models import MODEL

if TYPE_CHECKING:
    from resources.store import Artifact

MOST_ROWS = 20
"""Tensors in the table of those that moved most: what a person looks through."""


def build_task_vector(
    bases: Mapping[str, str],
    partitions: dg.PartitionsDefinition,
    from_model: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """Build the asset `task_vector`; `bases` maps each expert to its base model."""

    @team_asset(
        TASK_VECTOR,
        condition,
        deps=[dg.AssetDep(MODEL, partition_mapping=from_model)],
        partitions=partitions,
        group="task_vectors",
        one_run=True,
        kind="numpy",
        description="Expert − base, exact: by reference to both digests, or packed losslessly, as"
        " the model itself is kept. Norms of every tensor, and a plot over the layers.",
    )
    def task_vector(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, run = settings.store(), context.run.run_id

        def study(expert: str) -> Report:
            base, stored = bases[expert], store.resolve(MODEL, expert)
            found = study_task_vector(store, base, expert, run)
            if found.problem is not None:
                tell(context.log, f"{TASK_VECTOR} [{expert}]: no statistics: {found.problem}")
            return found.digest, _metadata(context.log, expert, base, stored, found)

        return each_partition(context, study)

    return task_vector


def _metadata(
    log: dg.DagsterLogManager, expert: str, base: str, stored: "Artifact | None", study: Study
) -> dict[str, Any]:
    from eval_ops.plots import layer_norm_plot
    from merge_ops.jobs.statistics import TensorChange

    shown = {
        **of_artifact(study.artifact, study.memoized),
        "base": base,
        **(of_packing(stored) if stored is not None else {}),
    }
    if study.problem is not None:
        return {**shown, "statistics": f"none: {study.problem}"}
    tensors = study.findings["tensors"]
    rows = sorted(tensors, key=_moved, reverse=True)
    changes = [TensorChange(**row) for row in tensors if row["relative_norm"] is not None]
    layers = f"{TASK_VECTOR} [{expert}]", lambda: layer_norm_plot(expert, changes)
    return {
        **shown,
        "norm": number(study.findings["norm"]),
        "share of entries changed": number(study.findings["changed_share"]),
        **({"layers": drawn(log, *layers)} if changes else {}),
        "tensors moved most": table(rows[:MOST_ROWS]),
    }


def _moved(row: Mapping[str, Any]) -> float:
    """How far a tensor moved against its size in the base; from zero it is infinitely far."""
    return math.inf if row["relative_norm"] is None else row["relative_norm"]
