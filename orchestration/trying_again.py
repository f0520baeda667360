"""What the daemon asks for a second time: what failed of something that passes.

A condition wishes a partition once for each change. Where its run fails because the store or an
endpoint does not answer, the wish is gone, and nobody would ask for it when they answer again.
Such runs have a tag (assets/frame/passing.py). `ronghe refresh` tries again whatever has failed.
"""

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.passing import MAY_PASS
from orchestration.holding import Parts, live_partitions
from orchestration.run_plans import partitions_of

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

SENSOR_NAME = "dagster/sensor_name"
FIRST_WAIT, LONGEST_WAIT = 300.0, 3600.0
"""Seconds from the end of a run until it is tried again: twice as long after each further try."""
FOR_DAYS = 7
MOST_RUNS = 500
"""Newer runs that are looked through for whether they are of the same partitions."""


def to_try_again(
    instance: dg.DagsterInstance, graph: "AssetGraph", sensor: str, now: float
) -> Parts:
    """Return the live partitions whose last run, asked for by `sensor`, may succeed by now.

    Raises nothing for runs of assets that are gone.
    """
    since = datetime.datetime.fromtimestamp(now, datetime.UTC) - datetime.timedelta(days=FOR_DAYS)
    tags = {MAY_PASS: "true", SENSOR_NAME: sensor}
    failed = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags=tags, updated_after=since),
        limit=MOST_RUNS,
    )
    if not failed:
        return {}
    first = min(record.create_timestamp for record in failed)
    begun = first - datetime.timedelta(seconds=1)
    later = instance.get_run_records(dg.RunsFilter(created_after=begun), limit=MOST_RUNS)
    ids = {record.dagster_run.run_id for record in failed}
    tries: dict[tuple[dg.AssetKey, str | None], int] = {}
    ended: dict[tuple[dg.AssetKey, str | None], float] = {}  # of the last run, where that failed
    settled: set[tuple[dg.AssetKey, str | None]] = set()
    for record in sorted(later, key=lambda each: each.storage_id, reverse=True):
        run = record.dagster_run
        made = _made(instance, run.run_id) if run.run_id in ids else set()
        for part in _parts_of(run, graph):
            if part in settled:
                continue
            if run.run_id not in ids or part in made:
                settled.add(part)
                continue
            tries[part] = tries.get(part, 0) + 1
            ended.setdefault(part, record.end_time or now)
    again: Parts = {}
    for (key, partition), end in ended.items():
        wait = min(FIRST_WAIT * 2 ** (tries[key, partition] - 1), LONGEST_WAIT)
        if now - end >= wait:
            again.setdefault(key, set()).add(partition)
    return {
        key: found for key, parts in again.items() if (found := parts & live_partitions(graph, key))
    }


def together(wanted: Mapping[dg.AssetKey, set[str | None]], again: Parts) -> Parts:
    """Return both wishes as one."""
    keys = {**wanted, **again}
    return {key: {*wanted.get(key, ()), *again.get(key, ())} for key in keys}


def _parts_of(run: dg.DagsterRun, graph: "AssetGraph") -> set[tuple[dg.AssetKey, str | None]]:
    found: set[tuple[dg.AssetKey, str | None]] = set()
    for key in (run.asset_selection or set()) & graph.materializable_asset_keys:
        definition = graph.get(key).partitions_def
        parts = {None} if definition is None else partitions_of(run.tags, definition)
        found |= {(key, each) for each in parts}
    return found


def _made(instance: dg.DagsterInstance, run_id: str) -> set[tuple[Any, str | None]]:
    """What a run made before it failed."""
    logged: Any = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [each.get_dagster_event() for each in logged]
    return {(each.asset_key, each.partition) for each in events}
