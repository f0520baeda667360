"""The daemon's sensor: the same conditions as `ronghe refresh`, and as few runs.

Dagster's own sensor asks for one run a partition, or for a backfill that is cut into ranges. This
one evaluates the conditions likewise and plans the runs as a refresh does. Checkpoints and their
scores share a run, in which the checks stand between both. Whatever comes after something that is
asked for or at work is held (orchestration/holding.py), so that one update runs each asset once.
What is held is told to the conditions as not asked for: they wish it at each further look, until it
is asked for or can no longer be made. What failed of a store that did not answer is asked for again
(orchestration/trying_again.py).
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.frame.dagster_internals import (
    AssetGraph,
    AutomationTickEvaluationContext,
    KnownPartitions,
    cursor_from_text,
    cursor_to_text,
)
from assets.work import names
from orchestration.holding import Parts, busy_parts, what_may_run
from orchestration.run_plans import plan_runs
from orchestration.trying_again import to_try_again, together

SENSOR = "refresh_what_changed"


class RefreshSensor(dg.AutomationConditionSensorDefinition):
    """A refresh sensor evaluates every asset's condition in the code server."""

    def __init__(self) -> None:
        """Target all assets; the sensor runs unless it is stopped (Dagster's default is off)."""
        super().__init__(
            SENSOR,
            target=dg.AssetSelection.all(),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=10,
            emit_backfills=False,
            use_user_code_server=True,
        )
        ours: Any = self
        ours._raw_fn = self.look
        ours._evaluation_fn = lambda context: [self.look(context)]

    def look(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Evaluate the conditions once, and ask for the runs of what is due."""
        with dg.partition_loading_context(
            dynamic_partitions_store=KnownPartitions(context.instance)
        ):
            return self._look(context)

    def _look(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        assert context.repository_def is not None
        graph: Any = context.repository_def.asset_graph
        text, waited = _opened(context.cursor)
        busy = busy_parts(context.instance, graph, [])  # before the look: a run may end amid it
        cursor = cursor_from_text(text, graph)
        tick: Any = AutomationTickEvaluationContext(
            evaluation_id=cursor.evaluation_id,
            instance=context.instance,
            asset_graph=graph,
            cursor=cursor,
            materialize_run_tags=self.run_tags,
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=self.asset_selection,
            emit_backfills=False,
            logger=context.log,
        )
        results, subsets = tick._evaluator.evaluate()
        wanted = {each.key: parts_of(each) for each in subsets if isinstance(each.key, dg.AssetKey)}
        due = together(wanted, to_try_again(context.instance, graph, SENSOR, time.time()))
        asked = what_may_run(graph, due, busy) if due else {}
        asked |= {key: {None} for key in waited if graph.has(key)}
        requests, joined = run_requests(graph, asked)
        for key, parts in joined.items():
            asked[key] = asked.get(key, set()) | (parts & wanted.get(key, set()))
        after = tick._get_updated_cursor([_Asked(each, graph, asked) for each in results], [])
        before = {
            each.key: each.result_value_hash for each in cursor.previous_condition_cursors or ()
        }
        told = [
            _without_held(each.serializable_evaluation, graph, asked)
            for each in results
            if before.get(each.key) != each.value_hash or asked.get(each.key)
        ]
        return dg.SensorResult(
            run_requests=requests,
            cursor=cursor_to_text(after),
            automation_condition_evaluations=told,
        )


def run_requests(
    graph: AssetGraph, wanted: Mapping[dg.AssetKey, set[str | None]]
) -> tuple[list[dg.RunRequest], Parts]:
    """Plan the runs, and return also which scores go with the checkpoints that they are of.

    Those wait for the checks, in the same run.
    """
    requests: list[dg.RunRequest] = []
    riding: Parts = {}
    for plan in plan_runs(graph, wanted):
        scored = [names.scores(key.path[0]) for key in plan.assets if _is_merged(key)]
        joined = [key for name in scored if graph.has(key := dg.AssetKey(name.split("/")))]
        for key in joined:
            riding.setdefault(key, set()).update(plan.partitions)
        requests.append(
            dg.RunRequest(
                asset_selection=[*plan.assets, *(key for key in joined if key not in plan.assets)],
                partition_key=plan.partition_key,
                tags=plan.tags,
            )
        )
    return requests, riding


def _is_merged(key: dg.AssetKey) -> bool:
    return len(key.path) > 1 and key.path[-1] == names.MERGED_CHECKPOINT


def parts_of(subset: Any) -> set[str | None]:
    """Return the partitions of one asset that its condition asks for."""
    if not subset.is_partitioned:
        return {None}
    return {str(each) for each in subset.expensively_compute_partition_keys()}


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What a condition found, of which only a part was asked for."""

    result: Any
    graph: Any
    asked: Parts

    def get_new_cursor(self) -> Any:
        """Return what the condition is to remember: that it was asked for ends a wish."""
        cursor = self.result.get_new_cursor()
        subset = _without_held_parts(cursor.previous_requested_subset, self.graph, self.asked)
        return dataclasses.replace(cursor, previous_requested_subset=subset)


def _without_held(evaluation: Any, graph: AssetGraph, asked: Parts) -> Any:
    """What Dagster's page shows of a condition: what was asked for, and not what is held."""
    subset = _without_held_parts(evaluation.true_subset, graph, asked)
    return dataclasses.replace(evaluation, true_subset=subset)


def _without_held_parts(subset: Any, graph: AssetGraph, asked: Parts) -> Any:
    """The partitions of a wish that were asked for."""
    if subset.is_empty or not isinstance(subset.key, dg.AssetKey):
        return subset
    parts, definition = asked.get(subset.key, set()), graph.get(subset.key).partitions_def
    if definition is None:
        return dataclasses.replace(subset, value=bool(parts))
    found = [str(key) for key in subset.subset_value.get_partition_keys() if str(key) in parts]
    return dataclasses.replace(subset, value=definition.subset_with_partition_keys(found))


def _opened(text: str | None) -> tuple[str | None, set[dg.AssetKey]]:
    """What the last look left: the conditions' cursor.

    An earlier release's also has summaries that waited; its conditions take them for asked for.
    """
    if text is None or not text.startswith('{"conditions"'):
        return text, set()
    state = json.loads(text)
    return state["conditions"], {dg.AssetKey.from_user_string(each) for each in state["held"]}
