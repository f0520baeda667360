"""model: upstream models, pulled, checked and published in the store."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from assets.frame.batches import Report, each_partition
from assets.frame.display import of_artifact, of_packing, of_work
from assets.frame.progress_log import log_progress
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.withdrawal_checks import check_partitions, spec
from assets.work.records.noted_changes import pull_noted
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import MODEL, PulledModel


def build_model(
    models: Mapping[str, UpstreamModel],
    partitions: dg.PartitionsDefinition,
    condition: dg.AutomationCondition,
) -> dg.AssetsDefinition:
    """Build the asset `model`, one partition for each model of the catalog."""

    @team_asset(
        MODEL,
        condition,
        deps=[dg.AssetDep("upstream_model")],
        partitions=partitions,
        group="models",
        one_run=True,
        kind="huggingface",
        checks=[spec(MODEL, partitions)],
        description="A model in the artifact store, its headers checked. LoRA adapters stay"
        " adapters; a full expert is kept as the exact difference from its base where that"
        " saves enough. The data version is the content's digest, however it is kept.",
    )
    def model(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        store, folder, run = settings.store(), Path(settings.catalog_folder), context.run.run_id

        def pull(name: str) -> Report:
            entry = models[name]
            base = models[entry.base] if entry.base else None
            progress = log_progress(context.log, name)
            say, warn = context.log.info, context.log.warning
            pulled = pull_noted(store, entry, folder, run, base, say, warn, progress)
            return pulled.artifact.digest, _metadata(entry, pulled)

        return each_partition(context, pull, check=partial(check_partitions, context, settings))

    return model


def _metadata(entry: UpstreamModel, pulled: PulledModel) -> dict[str, Any]:
    return {
        **of_artifact(pulled.artifact, pulled.memoized),
        **of_work(pulled.seconds, pulled.artifact.nbytes),
        **({"title": entry.title} if entry.title else {}),
        **({"description": entry.description} if entry.description else {}),
        "source": entry.source,
        "revision": pulled.revision,
        "base": entry.base or "none: it is a base model",
        "kind": entry.kind,
        **of_packing(pulled.artifact),
        "licence": entry.licence or "not stated",
        "tensors": pulled.tensors,
        "parameters": pulled.parameters,
    }
