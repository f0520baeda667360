"""How a catalog stands after a refresh: what is missing, stale, or made by somebody else right now.

A refresh that runs nothing is not done where another process works on the same partitions, or where
what they need has failed. So this asks the instance, and never what was asked for.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.run_plans import partitions_of

if TYPE_CHECKING:
    from assets.dagster_internals import AssetGraph

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
HEARTBEAT_SECONDS = 120.0
"""A daemon says every half minute that it lives; four times that long it is taken for running."""

Parts = dict[dg.AssetKey, set[str | None]]


@dataclass
class Standing:
    """Partitions by asset that are not up to date, each in one of three ways.

    `elsewhere` are in unfinished runs of others, `missing` were never made, and what `stale` ones
    are made from, or how, has changed since. `runs` are the ids of the others' runs.
    """

    missing: Parts = field(default_factory=dict)
    stale: Parts = field(default_factory=dict)
    elsewhere: Parts = field(default_factory=dict)
    runs: list[str] = field(default_factory=list[str])


def look(
    instance: dg.DagsterInstance, graph: "AssetGraph", waiting: Mapping[dg.AssetKey, Iterable]
) -> Standing:
    """Compare what is live with what is made; `waiting` was asked for and is not made.

    Whatever depends on something that is not up to date is stale too.
    """
    standing = Standing()
    busy = busy_parts(instance, graph, standing.runs)
    late: Parts = {}
    for key in graph.toposorted_asset_keys:
        if key not in graph.materializable_asset_keys:
            continue
        live = live_partitions(graph, key)
        made = _made(instance, graph, key)
        standing.elsewhere[key] = busy.get(key, set()) & live
        standing.missing[key] = live - made - standing.elsewhere[key]
        touched = set(waiting.get(key, ())) | parts_below(graph, key, late)
        others = standing.elsewhere[key] | standing.missing[key]
        standing.stale[key] = (touched & live) - others
        late[key] = standing.stale[key] | others
    return standing


def daemon_of(instance: dg.DagsterInstance) -> bool:
    """Return whether a Dagster daemon has said lately that it works on the instance."""
    beats = instance.get_daemon_heartbeats().values()
    return any(time.time() - beat.timestamp < HEARTBEAT_SECONDS for beat in beats)


def live_partitions(graph: "AssetGraph", key: dg.AssetKey) -> set[str | None]:
    """Return the partitions that an asset has today; None alone where it is not partitioned."""
    definition = graph.get(key).partitions_def
    if definition is None:
        return {None}
    return {str(each) for each in definition.get_partition_keys()}


def _made(instance: dg.DagsterInstance, graph: "AssetGraph", key: dg.AssetKey) -> set[str | None]:
    if graph.get(key).partitions_def is not None:
        return {*instance.get_materialized_partitions(key)}
    return {None} if instance.get_latest_materialization_event(key) is not None else set()


def parts_below(graph: "AssetGraph", key: dg.AssetKey, late: Parts) -> set[str | None]:
    """Return the partitions of an asset that depend on late ones of its parents.

    Summaries (no partitions) of partitioned parents are never late by them: they sum up what there
    is, and the conditions ask for them again when that changes.
    """
    definition, found = graph.get(key).partitions_def, set[str | None]()
    for parent in graph.get(key).parent_keys:
        parts, of_parent = late.get(parent, set()), graph.get(parent).partitions_def
        if not parts or (definition is None and of_parent is not None):
            continue
        if definition is None:
            return {None}
        if of_parent is None:
            return live_partitions(graph, key)
        subset = of_parent.subset_with_partition_keys([str(each) for each in parts])
        mapping = graph.get_partition_mapping(key, parent)
        below = mapping.get_downstream_partitions_for_partitions(subset, of_parent, definition)
        found |= {str(each) for each in below.get_partition_keys()}
    return found


def busy_parts(instance: dg.DagsterInstance, graph: "AssetGraph", runs: list[str]) -> Parts:
    """Return the partitions of unfinished runs, by asset; the ids of those runs go to `runs`."""
    busy: Parts = {}
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED)):
        keys = (run.asset_selection or set()) & graph.materializable_asset_keys
        runs += [run.run_id] if keys else []
        for key in keys:
            definition = graph.get(key).partitions_def
            parts = {None} if definition is None else {*partitions_of(run.tags, definition)}
            busy.setdefault(key, set()).update(parts)
    return busy
