"""One look at the automation conditions, and what they ask for.

`dg.evaluate_automation_conditions` is made for tests: it writes the cursor out and reads it in
again at each look. A refresh writes it anyway, to the instance, so that a killed one goes on from
there; here that text is what the next look reads.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.dagster_internals import (
    AssetDaemonCursor,
    AutomationConditionEvaluator,
    DeserializationError,
    deserialize_value,
    serialize_value,
)
from orchestration.daemon_sensor import parts_of

if TYPE_CHECKING:
    from assets.frame.dagster_internals import AssetGraph


@dataclass(frozen=True)
class Asked:
    """What one look asked for, by asset, and what the next one has to know, as text."""

    partitions: Mapping[dg.AssetKey, set[str | None]]
    cursor: str


def ask(instance: dg.DagsterInstance, graph: "AssetGraph", cursor: str | None) -> Asked:
    """Evaluate the conditions of all assets; `cursor` is the text of the last look, None at first.

    As the daemon's sensor does: conditions of checks count too. A cursor that another release of
    Dagster wrote is none.
    """
    seen = _read(cursor)
    selection = dg.AssetSelection.all()
    keys: Any = selection.resolve(graph) | selection.resolve_checks(graph)
    evaluator = AutomationConditionEvaluator(
        asset_graph=graph,
        instance=instance,
        entity_keys={key for key in keys if graph.get(key).automation_condition is not None},
        emit_backfills=False,
        cursor=seen,
        evaluation_id=seen.evaluation_id,
    )
    results, subsets = evaluator.evaluate()
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        after = seen.with_updates(
            evaluation_timestamp=time.time(),
            newly_observe_requested_asset_keys=[],
            evaluation_id=seen.evaluation_id + 1,
            condition_cursors=[result.get_new_cursor() for result in results],
            asset_graph=graph,
        )
        wanted = {each.key: parts_of(each) for each in subsets if isinstance(each.key, dg.AssetKey)}
    return Asked(wanted, serialize_value(after))


def _read(cursor: str | None) -> AssetDaemonCursor:
    try:
        return deserialize_value(cursor, AssetDaemonCursor) if cursor else AssetDaemonCursor.empty()
    except (DeserializationError, ValueError):
        return AssetDaemonCursor.empty()
