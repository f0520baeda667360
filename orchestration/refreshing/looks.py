"""The looks of a refresh at what is upstream: no Dagster run, and an event of what changed alone.

The daemon's schedule looks by a run, which is what it can start. A look makes nothing, so here the
same function is called in this process; Dagster takes what it saw as observations without a run.
One that says what the last one said is not written: nothing would ever remove it.
"""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from assets.frame.data_versions import DATA_VERSION
from assets.frame.run_settings import RunSettings
from orchestration.refreshing.log import RunLog


@dataclass(frozen=True)
class LookContext:
    """What an observing function uses of Dagster's context: where it logs, and the instance."""

    log: dg.DagsterLogManager
    instance: dg.DagsterInstance


def look_upstream(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    key: dg.AssetKey,
    settings: RunSettings,
    log: RunLog,
) -> list[str]:
    """Look at all partitions of an observed asset; returns why not, where it cannot be looked at.

    What is wrong with some of them is on the log (assets.frame.display.tell).
    """
    manager = dg.DagsterLogManager.create([log.logger])
    try:
        seen = _observing(definitions, key)(LookContext(manager, instance), settings)
    except Exception as error:  # as a run's step that failed: the rest of the refresh goes on
        manager.exception("the look at %s failed", key.to_user_string())
        failed = error.description if isinstance(error, dg.Failure) else None
        return [f"{key.to_user_string()}: {failed or f'{type(error).__name__}: {error}'}"]
    storage, kind = instance.event_log_storage, dg.DagsterEventType.ASSET_OBSERVATION
    last = storage.get_latest_tags_by_partition(key, kind, [DATA_VERSION])
    for part, version in seen.data_versions_by_partition.items():
        if last.get(part, {}).get(DATA_VERSION) != version.value:
            tags = {DATA_VERSION: version.value}
            instance.report_runless_asset_event(dg.AssetObservation(key, partition=part, tags=tags))
    return []


def _observing(definitions: dg.Definitions, key: dg.AssetKey) -> Any:
    """The function of the observable source asset."""
    sources = (each for each in definitions.assets or () if isinstance(each, dg.SourceAsset))
    return next(each.observe_fn for each in sources if each.key == key)
