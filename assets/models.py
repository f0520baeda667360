"""model: upstream models, pulled, checked and published in the store."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from assets.display import of_artifact, of_packing, of_work
from assets.failures import RETRY_CRASHES, clear_failures
from assets.run_settings import RunSettings
from assets.work.entries import UpstreamModel
from assets.work.pulling import pull_model


def build_model(
    models: Mapping[str, UpstreamModel],
    partitions: dg.PartitionsDefinition,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """The asset `model`, one partition for each model of the catalog."""

    @dg.asset(
        name="model",
        deps=["upstream_model"],
        partitions_def=partitions,
        group_name="models",
        automation_condition=condition,
        retry_policy=RETRY_CRASHES,
        kinds={"huggingface"},
        description="A model in the artifact store, its headers checked. LoRA adapters stay"
        " adapters; a full expert is kept as the exact difference from its base where that"
        " saves enough. The data version is the content's digest, however it is kept.",
    )
    @clear_failures()
    def model(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        entry = models[context.partition_key]
        folder = Path(settings.catalog_folder)
        base = models[entry.base] if entry.base else None
        pulled = pull_model(settings.store(), entry, folder, context.run.run_id, base)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(pulled.artifact.digest),
            metadata={
                **of_artifact(pulled.artifact, pulled.memoized),
                **of_work(pulled.seconds, pulled.artifact.nbytes),
                "source": entry.source,
                "revision": pulled.revision,
                "base": entry.base or "none: it is a base model",
                "kind": entry.kind,
                **of_packing(pulled.artifact),
                "licence": entry.licence or "not stated",
                "tensors": pulled.tensors,
                "parameters": pulled.parameters,
            },
        )

    return model
