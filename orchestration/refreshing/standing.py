"""How a catalog stands after a refresh: what is missing, stale, or made by somebody else right now.

A refresh that runs nothing is not done where another process works on the same partitions, or where
what they need has failed. So this asks the instance, and never what was asked for.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from orchestration.holding import Parts, busy_parts, live_partitions, parts_below

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

HEARTBEAT_SECONDS = 120.0
"""A daemon says every half minute that it lives; four times that long it is taken for running."""


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


def _made(instance: dg.DagsterInstance, graph: "AssetGraph", key: dg.AssetKey) -> set[str | None]:
    if graph.get(key).partitions_def is not None:
        return {*instance.get_materialized_partitions(key)}
    return {None} if instance.get_latest_materialization_event(key) is not None else set()
