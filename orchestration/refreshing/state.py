"""What a refresh leaves for the next one, in Dagster's instance: where it looked last, what waits.

It is saved as the refresh goes along, so that one that is killed is continued by the next, and what
failed is tried again.
"""

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph

CURSOR, WAITING = "ronghe.refresh.cursor", "ronghe.refresh.waiting"
Wanted = Mapping[dg.AssetKey, Iterable[str | None]]


def load_cursor(instance: dg.DagsterInstance) -> str | None:
    """Load what the conditions saw last, as text; None at first."""
    return instance.daemon_cursor_storage.get_cursor_values({CURSOR}).get(CURSOR)


def load_waiting(
    instance: dg.DagsterInstance, graph: "AssetGraph"
) -> dict[dg.AssetKey, set[str | None]]:
    """Load the live partitions that were asked for and not materialized."""
    values = instance.daemon_cursor_storage.get_cursor_values({WAITING})
    waiting: dict[dg.AssetKey, set[str | None]] = {}
    for name, partitions in json.loads(values.get(WAITING, "{}")).items():
        key = dg.AssetKey.from_user_string(name)
        if key not in graph.materializable_asset_keys:
            continue
        definition = graph.get(key).partitions_def
        live: set[str | None] = {None}
        if definition is not None:
            live = {str(each) for each in definition.get_partition_keys()}
        if found := live & set(partitions):
            waiting[key] = found
    return waiting


def save(instance: dg.DagsterInstance, cursor: str, waiting: Wanted) -> None:
    """Remember both, in one write."""
    values = {CURSOR: cursor, WAITING: _written(waiting)}
    instance.daemon_cursor_storage.set_cursor_values(values)


def save_waiting(instance: dg.DagsterInstance, waiting: Wanted) -> None:
    """Remember what waits, after a run; what was seen, which is longer, has not changed by it."""
    instance.daemon_cursor_storage.set_cursor_values({WAITING: _written(waiting)})


def _written(waiting: Wanted) -> str:
    names = {
        key.to_user_string(): sorted(partitions, key=str)
        for key, partitions in waiting.items()
        if partitions
    }
    return json.dumps(names, ensure_ascii=False)
