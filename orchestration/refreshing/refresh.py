"""`ronghe refresh`: observe, then run whatever the automation conditions ask for, in this process.

The definitions and conditions are those of the daemon; only the loop around them is here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.dagster_internals import KnownPartitions
from assets.frame.progress_log import listening
from assets.work import names
from orchestration import interruption
from orchestration.automation import OBSERVE_JOB, UPSTREAM
from orchestration.catalogs.catalog_name import named_settings
from orchestration.definitions import build_definitions
from orchestration.holding import live_partitions
from orchestration.refreshing.conditions import ask
from orchestration.refreshing.failed_steps import failures_of, found_by_checks, is_fault
from orchestration.refreshing.lock import only_refresh, run_tags
from orchestration.refreshing.log import RunLog
from orchestration.refreshing.looks import look_upstream
from orchestration.refreshing.progress import RefreshProgress
from orchestration.refreshing.report import AssetCount, RefreshReport
from orchestration.refreshing.requests import Pending
from orchestration.refreshing.standing import Standing, daemon_of, look
from orchestration.refreshing.state import load_cursor, load_waiting, save, save_waiting
from orchestration.refreshing.step_signals import signals_end_the_refresh
from orchestration.refreshing.store_state import what_the_store_lacks
from orchestration.retention import forget_old_looks
from orchestration.run_plans import RunPlan
from orchestration.settings import Settings
from orchestration.training_runs import OBSERVE_RUNS_JOB, UPSTREAM_STEP

if TYPE_CHECKING:
    from rich.console import Console

MOST_LOOKS = 200
WITH_OUR_LOGGER = {"loggers": {"console": {}}}  # without it Dagster adds its own to the terminal


def refresh(
    instance: dg.DagsterInstance, settings: Settings, console: "Console | None" = None
) -> RefreshReport:
    """Bring everything up to date and say what was run. Failures are in the report, not raised.

    Raises CatalogError, and RefreshRunningError when another refresh is at work on the instance.
    """
    with _at_work(instance, settings, console) as work:
        return work.run()


def look_ahead(
    instance: dg.DagsterInstance, settings: Settings, console: "Console | None" = None
) -> tuple[Standing, RefreshReport]:
    """Say what a refresh would make now, at most, and run nothing but the look at upstream models.

    Whatever is below a change counts, although its inputs may come out as they were. Raises as
    `refresh` does.
    """
    with _at_work(instance, settings, console) as work:
        return work.look_ahead()


@contextmanager
def _at_work(
    instance: dg.DagsterInstance, settings: Settings, console: "Console | None"
) -> "Iterator[_Refresh]":
    """The only refresh of an instance, with its log, its bars and its signals."""
    settings = named_settings(settings)
    definitions, home = build_definitions(settings), settings.dagster_home
    with only_refresh(instance, home):
        log = RunLog(home / "logs" / "refresh.log")
        progress = RefreshProgress(console)
        with dg.partition_loading_context(dynamic_partitions_store=instance):
            work = _Refresh(instance, definitions, log, progress, run_tags(home), settings)
        steps = dg.partition_loading_context(dynamic_partitions_store=instance)
        with log.everything(), progress, listening(progress.move), signals_end_the_refresh(), steps:
            yield work


class _Refresh:
    """One refresh: the definitions, the jobs, and what was done so far."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        definitions: dg.Definitions,
        log: RunLog,
        progress: RefreshProgress,
        tags: dict[str, str],
        settings: Settings,
    ) -> None:
        self.progress = progress
        self._settings = settings
        self._tags = tags
        self._instance = instance
        self._definitions = definitions
        self._log = log
        self._graph = definitions.resolve_asset_graph()
        job = definitions.resolve_implicit_global_asset_job_def()
        self._job = job.with_logger_defs(log.loggers)
        self._jobs: dict[frozenset[dg.AssetKey], dg.JobDefinition] = {}
        self._report = RefreshReport(
            {
                key.to_user_string(): AssetCount(self._live(key))
                for key in self._graph.toposorted_asset_keys
                if self._graph.get(key).is_materializable
            }
        )

    def run(self) -> RefreshReport:
        started = time.perf_counter()
        self._observe()
        with dg.partition_loading_context(dynamic_partitions_store=KnownPartitions(self._instance)):
            self._bring_up_to_date()
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _bring_up_to_date(self) -> None:
        """Ask the conditions, and run what they ask for, until they ask for nothing."""
        cursor, pending = load_cursor(self._instance), Pending(self._graph)
        waiting = load_waiting(self._instance, self._graph)
        pending.add(waiting)
        self.progress.expect(waiting)
        pending.add(self._lost())
        for _ in range(MOST_LOOKS):
            asked = ask(self._instance, self._graph, cursor)
            cursor = asked.cursor
            pending.add(asked.partitions)
            self.progress.expect(asked.partitions)
            plans = list(pending.ready())
            save(self._instance, cursor, pending.waiting)
            for plan in plans:
                pending.settle(plan, self._execute(plan))
                save_waiting(self._instance, pending.waiting)
            if not plans:
                break
        self._stand(pending)

    def look_ahead(self) -> tuple[Standing, RefreshReport]:
        """Observe, ask the conditions once, and follow what they ask for down the graph."""
        self._observe()
        pending = Pending(self._graph)
        pending.add(load_waiting(self._instance, self._graph))
        pending.add(self._lost())
        # What was seen is not moved on: nothing is made.
        asked = ask(self._instance, self._graph, load_cursor(self._instance))
        pending.add(asked.partitions)
        return look(self._instance, self._graph, pending.waiting), self._report

    def _stand(self, pending: Pending) -> None:
        """Say what is not up to date at the end."""
        standing = look(self._instance, self._graph, pending.waiting)
        for name, count in self._report.counts.items():
            key = dg.AssetKey.from_user_string(name)
            count.missing = standing.missing[key] - count.failed
            count.stale = standing.stale[key] - count.failed
            count.elsewhere = standing.elsewhere[key] - count.failed
        self._report.others = len(standing.runs)
        self._report.daemon = daemon_of(self._instance)

    def _lost(self) -> dict[dg.AssetKey, set[str | None]]:
        """What Dagster believes made and the store lacks (store_state)."""
        self.progress.say("comparing with the artifact store")
        state = what_the_store_lacks(self._instance, self._graph, self._settings)
        self._report.notes += state.notes
        self._report.failures += state.damaged
        self.progress.expect(state.lacking)
        return state.lacking

    def _observe(self) -> None:
        self.progress.say("looking at the upstream models")
        self._look(OBSERVE_JOB, UPSTREAM)
        if (count := self._report.counts.get(names.RUN_STEP)) is not None:
            self.progress.say("looking at the training runs")
            self._look(OBSERVE_RUNS_JOB, UPSTREAM_STEP)
            count.live = self._live(dg.AssetKey(names.RUN_STEP))
            if (scored := self._report.counts.get(names.RUN_SCORES)) is not None:
                scored.live = self._live(dg.AssetKey(names.RUN_SCORES))

    def _look(self, job_name: str, key: dg.AssetKey) -> None:
        forget_old_looks(self._instance, job_name, key)
        taken: Any = (self._definitions.resources or {})["settings"]
        failed = look_upstream(self._instance, self._definitions, key, taken, self._log)
        interruption.check()
        self._report.failures += [*self._log.errors.take(), *failed]

    def _execute(self, plan: RunPlan) -> dict[dg.AssetKey, set[str | None]]:
        """Run a plan; returns what has to be tried again another time."""
        told = ", ".join(key.to_user_string() for key in plan.everything)
        self.progress.say(f"{told} {_short(plan)}")
        result = self._job_of(plan.everything).execute_in_process(
            WITH_OUR_LOGGER,
            instance=self._instance,
            asset_selection=plan.everything,
            partition_key=plan.partition_key,
            tags={**self._tags, **plan.tags},
            raise_on_error=False,
        )
        interruption.check()
        self._report.runs += 1
        self._report.notes += [told for told, serious in found_by_checks(result) if not serious]
        if not (result.success and _all_passed(result)):
            self._report.failures += failures_of(result, f"{told} {_short(plan)}".strip())
        self._report.failures += self._log.errors.take()
        left = _not_come_to(result, plan)
        return {
            key: self._count(result, key, plan.parts_of(key))
            for key in plan.everything
            if key not in left
        }

    def _job_of(self, keys: list[dg.AssetKey]) -> dg.JobDefinition:
        """The job of these assets alone: a run describes the job that it is taken from to Dagster,
        and to describe all assets of a catalog for each run takes longer than small steps do."""
        wanted = frozenset(keys)
        if wanted not in self._jobs:
            self._jobs[wanted] = self._job.get_subset(asset_selection=wanted)
        return self._jobs[wanted]

    def _count(
        self, result: dg.ExecuteInProcessResult, key: dg.AssetKey, asked: set[str | None]
    ) -> set[str | None]:
        """Count what a run did for one asset; returns what failed, itself or its check."""
        done = self._materialized(result, key) & asked
        count = self._report.counts[key.to_user_string()]
        count.rerun |= done
        self.progress.advance(key, len(asked))
        unsound = {
            each.partition
            for each in self._evaluations(result)
            if each.asset_key == key and is_fault(each)
        }
        failed = (asked - done) | (unsound & asked)
        count.failed |= failed
        return failed

    def _evaluations(self, result: dg.ExecuteInProcessResult) -> list[dg.AssetCheckEvaluation]:
        """Every check of a run; those of a step that failed later are in the log alone."""
        if result.success:
            return list(result.get_asset_check_evaluations())
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        logged: Any = self._instance.all_logs(result.run_id, of_type=kind)
        return [each.get_dagster_event().event_specific_data for each in logged]

    def _materialized(self, result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> set[str | None]:
        """Partitions that a run made; those of a step that failed later are in the log alone."""
        events = result.all_events
        if not result.success:
            kind = dg.DagsterEventType.ASSET_MATERIALIZATION
            logged = self._instance.all_logs(result.run_id, of_type=kind)
            events = [each.get_dagster_event() for each in logged]
        return {e.partition for e in events if e.is_step_materialization and e.asset_key == key}

    def _live(self, key: dg.AssetKey) -> int:
        return len(live_partitions(self._graph, key))


def _not_come_to(result: dg.ExecuteInProcessResult, plan: RunPlan) -> set[dg.AssetKey]:
    """The riders of a run whose steps did not begin, because something before them failed."""
    begun = {event.step_key for event in result.all_events if event.is_step_start}
    return {key for key in plan.riders if "__".join(key.path) not in begun}


def _all_passed(result: dg.ExecuteInProcessResult) -> bool:
    return not any(map(is_fault, result.get_asset_check_evaluations()))


def _short(plan: RunPlan) -> str:
    """What a run is about, for people: a partition, or an expert set."""
    if plan.keys is None:
        return ""
    if len(plan.keys) == 1:
        return f"[{plan.keys[0]}]"
    sets = sorted({key.split("|")[-1] for key in plan.keys})
    where = sets[0] if len(sets) == 1 else f"{len(sets)} expert sets"
    return f"[{where}, {len(plan.keys)} partitions]"
