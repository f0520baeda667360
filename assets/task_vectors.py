"""task_vector: what each expert learned, as expert − base."""

from collections.abc import Mapping

import dagster as dg

from assets.display import of_artifact, of_packing, picture, table
from assets.failures import RETRY_CRASHES, clear_failures
from assets.run_settings import RunSettings
from assets.work.packed_models import MODEL
from assets.work.studying import study_task_vector


def build_task_vector(
    bases: Mapping[str, str],
    partitions: dg.PartitionsDefinition,
    from_model: dg.PartitionMapping,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """The asset `task_vector`; `bases` maps each expert to its base model."""

    @dg.asset(
        name="task_vector",
        deps=[dg.AssetDep("model", partition_mapping=from_model)],
        partitions_def=partitions,
        group_name="task_vectors",
        automation_condition=condition,
        retry_policy=RETRY_CRASHES,
        kinds={"numpy"},
        description="Expert − base, exact: by reference to both digests, or packed losslessly, as"
        " the model itself is kept. Norms of every tensor, and a plot over the layers.",
    )
    @clear_failures()
    def task_vector(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from eval_ops.plots import layer_norm_plot
        from merge_ops.jobs.statistics import TensorChange

        expert = context.partition_key
        kept = settings.store().resolve(MODEL, expert)
        study = study_task_vector(settings.store(), bases[expert], expert, context.run.run_id)
        rows = sorted(study.found["tensors"], key=lambda row: -row["relative_norm"])
        changes = [TensorChange(**row) for row in study.found["tensors"]]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(study.artifact.digest),
            metadata={
                **of_artifact(study.artifact, study.memoized),
                "base": bases[expert],
                **(of_packing(kept) if kept is not None else {}),
                "norm": study.found["norm"],
                "share of entries changed": study.found["changed_share"],
                "layers": picture(layer_norm_plot(expert, changes)),
                "tensors moved most": table(rows[:20]),
            },
        )

    return task_vector
