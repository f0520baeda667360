"""The daemon's sensor: the same conditions as `ronghe refresh`, and as few runs.

Dagster's own sensor asks for one run a partition, or for a backfill that is cut into ranges. This
one evaluates the conditions likewise and plans the runs as a refresh does. Checkpoints and their
scores share a run, in which the checks stand between both. Summaries (leaderboard, champions) wait
until nothing above them is asked for or at work, so that one update is summed up once.
"""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.dagster_internals import (
    AssetGraph,
    AutomationTickEvaluationContext,
    cursor_from_text,
    cursor_to_text,
)
from assets.work import names
from orchestration.run_plans import plan_runs

SENSOR = "refresh_what_changed"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


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
        assert context.repository_def is not None
        graph: Any = context.repository_def.asset_graph
        text, held = _opened(context.cursor)
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
        wanted = {each.key: _parts(each) for each in subsets if isinstance(each.key, dg.AssetKey)}
        held |= {key for key in wanted if _sums_up(key)}
        above = {*wanted} | _at_work(context.instance)
        due = {key for key in held if not (graph.get_ancestor_asset_keys(key) - held) & above}
        wanted = {key: parts for key, parts in wanted.items() if key not in held}
        wanted |= {key: {None} for key in due if graph.has(key)}
        left = sorted(key.to_user_string() for key in held - due if graph.has(key))
        after = tick._get_updated_cursor(results, [])
        state = json.dumps({"conditions": cursor_to_text(after), "held": left})
        return dg.SensorResult(
            run_requests=run_requests(graph, wanted),
            cursor=state,
            automation_condition_evaluations=tick._get_updated_evaluations(results),
        )


def run_requests(graph: AssetGraph, wanted: Mapping[dg.AssetKey, set[str | None]]) -> list:
    """Plan the runs; scores go with the checkpoints that they are of, and wait for the checks."""
    requests = []
    for plan in plan_runs(graph, wanted):
        scored = [names.scores(key.path[0]) for key in plan.assets if _is_merged(key)]
        joined = [key for name in scored if graph.has(key := dg.AssetKey(name.split("/")))]
        requests.append(
            dg.RunRequest(
                asset_selection=[*plan.assets, *(key for key in joined if key not in plan.assets)],
                partition_key=plan.partition_key,
                tags=plan.tags,
            )
        )
    return requests


def _is_merged(key: dg.AssetKey) -> bool:
    return len(key.path) > 1 and key.path[-1] == names.MERGED_CHECKPOINT


def _sums_up(key: dg.AssetKey) -> bool:
    """Whether an asset sums up partitions: the leaderboard, and champions, which come after it."""
    return names.kind_of(key.to_user_string()) in ("leaderboard", names.CHAMPION)


def _parts(subset: Any) -> set[str | None]:
    """The partitions of one asset that its condition asks for."""
    if not subset.is_partitioned:
        return {None}
    return {str(each) for each in subset.expensively_compute_partition_keys()}


def _at_work(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """The assets of runs that are not over."""
    runs = instance.get_runs(filters=dg.RunsFilter(statuses=UNFINISHED))
    return {key for run in runs for key in run.asset_selection or ()}


def _opened(text: str | None) -> tuple[str | None, set[dg.AssetKey]]:
    """What the last look left: the conditions' cursor, and the summaries that wait."""
    if text is None or not text.startswith("{"):
        return text, set()
    state = json.loads(text)
    return state["conditions"], {dg.AssetKey.from_user_string(each) for each in state["held"]}
