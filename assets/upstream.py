"""upstream_model: what is out there, looked at and never copied."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from assets.frame.display import tell
from assets.frame.run_settings import RunSettings
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import kept_note, revisions
from merge_ops.errors import shown


def build_upstream_model(
    models: Mapping[str, UpstreamModel], partitions: dg.PartitionsDefinition
) -> dg.SourceAsset:
    """Build the observable source asset, one partition for each model of the catalog."""

    @dg.observable_source_asset(
        name="upstream_model",
        partitions_def=partitions,
        group_name="models",
        description="Models as their authors publish them. The data version is the revision: a"
        " commit, an ETag, or a hash of the content. One run looks at all of them.",
        tags={"dagster/kind/huggingface": ""},
    )
    def upstream_model(
        context: dg.OpExecutionContext, settings: RunSettings
    ) -> dg.DataVersionsByPartition:
        revision_of, faults = revisions(list(models.values()), Path(settings.catalog_folder))
        for name, fault in faults.items():
            told = f"{fault}{kept_note(settings.store(), name)}"
            tell(context.log, f"upstream model '{name}': {shown(told, lines=True)}")
        if models and not revision_of:  # a catalog may have training runs alone
            message = "; ".join(faults.values()) or "every entry of the catalog is broken"
            raise dg.Failure(f"no upstream model can be reached: {message}", allow_retries=False)
        return dg.DataVersionsByPartition(revision_of)

    return upstream_model
