"""`ronghe refresh`: observe, then run whatever the automation conditions ask for, in this process.

The definitions and conditions are those of the daemon; only the loop around them is here.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.batches import FAILED
from assets.dagster_internals import DagsterSqliteStorage, InstanceRef
from assets.progress_log import listening
from orchestration import interruption
from orchestration.automation import OBSERVE_JOB, UPSTREAM
from orchestration.catalogs.catalog_name import named_settings
from orchestration.definitions import build_definitions
from orchestration.holding import live_partitions
from orchestration.refreshing.lock import only_refresh, run_tags
from orchestration.refreshing.log import RunLog
from orchestration.refreshing.progress import RefreshProgress
from orchestration.refreshing.report import AssetCount, RefreshReport
from orchestration.refreshing.requests import Pending
from orchestration.refreshing.standing import daemon_of, look
from orchestration.refreshing.state import load_cursor, load_waiting, save, save_waiting
from orchestration.refreshing.step_signals import signals_end_the_refresh
from orchestration.refreshing.store_state import what_the_store_lacks
from orchestration.retention import forget_old_looks
from orchestration.run_plans import RunPlan
from orchestration.settings import Settings, check_dagster_home

if TYPE_CHECKING:
    from rich.console import Console

MOST_LOOKS = 200
IN_PROCESS = {
    "telemetry": {"enabled": False},
    "concurrency": {"pools": {"granularity": "run"}},
    "compute_logs": {
        "module": "dagster.core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}
"""For this process only. It runs one step at a time and takes no slot of a pool, which a kill would
leave claimed; output of steps is not captured, it would tear the progress bars."""
KEPT = "orchestration.refreshing.kept_storage"
MINIMAL = b"telemetry:\n  enabled: false\n"
WITH_OUR_LOGGER = {"loggers": {"console": {}}}  # without it Dagster adds its own to the terminal


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open Dagster's instance in DAGSTER_HOME; make it when it is not there."""
    prepare_home(settings)
    home = str(settings.dagster_home)
    reference = InstanceRef.from_dir(home, overrides=IN_PROCESS)
    storage = reference.storage_data
    if storage is not None and storage.class_name == DagsterSqliteStorage.__name__:
        kept = {"module": KEPT, "class": "KeptSqliteStorage", "config": {"base_dir": home}}
        overrides = {**IN_PROCESS, "storage": {"custom": kept}}
        reference = InstanceRef.from_dir(home, overrides=overrides)
    return dg.DagsterInstance.from_ref(reference)


def prepare_home(settings: Settings) -> None:
    """Make DAGSTER_HOME, with the configuration from the project's folder when it has one.

    Raises SettingsError where Dagster cannot use the folder.
    """
    check_dagster_home(settings.dagster_home)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    path, project = settings.dagster_home / "dagster.yaml", Path("dagster.yaml")
    if not path.exists():
        path.write_bytes(project.read_bytes() if project.is_file() else MINIMAL)


def refresh(
    instance: dg.DagsterInstance, settings: Settings, console: "Console | None" = None
) -> RefreshReport:
    """Bring everything up to date and say what was run. Failures are in the report, not raised.

    Raises CatalogError, and RefreshRunningError when another refresh is at work on the instance.
    """
    settings = named_settings(settings)
    definitions, home = build_definitions(settings), settings.dagster_home
    with only_refresh(instance, home):
        log = RunLog(home / "logs" / "refresh.log")
        progress = RefreshProgress(console)
        work = _Refresh(instance, definitions, log, progress, run_tags(home), settings)
        with log.everything(), progress, listening(progress.move), signals_end_the_refresh():
            return work.run()


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
        cursor, pending = load_cursor(self._instance), Pending(self._graph)
        waiting = load_waiting(self._instance, self._graph)
        pending.add(waiting)
        self.progress.expect(waiting)
        pending.add(self._lost())
        for _ in range(MOST_LOOKS):
            result = dg.evaluate_automation_conditions(
                defs=self._definitions,
                instance=self._instance,
                cursor=cursor,
                asset_selection=dg.AssetSelection.all(),  # as the daemon's sensor does
            )
            cursor = result.cursor
            keys = self._graph.materializable_asset_keys
            requested = {key: result.get_requested_partitions(key) for key in keys}
            pending.add(requested)
            self.progress.expect(requested)
            plans = list(pending.ready())
            save(self._instance, cursor, pending.waiting)
            for plan in plans:
                pending.settle(plan, self._execute(plan))
                save_waiting(self._instance, pending.waiting)
            if not plans:
                break
        self._stand(pending)
        self._report.seconds = time.perf_counter() - started
        return self._report

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
        forget_old_looks(self._instance, OBSERVE_JOB, UPSTREAM)
        job = self._definitions.resolve_job_def(OBSERVE_JOB).with_logger_defs(self._log.loggers)
        result = job.execute_in_process(
            WITH_OUR_LOGGER, instance=self._instance, tags=self._tags, raise_on_error=False
        )
        interruption.check()
        self._report.runs += 1
        self._report.failures += self._log.errors.take()
        if not result.success:
            self._report.failures += _failures(result, "upstream_model")

    def _execute(self, plan: RunPlan) -> dict[dg.AssetKey, set[str | None]]:
        """Run a plan; returns what has to be tried again another time."""
        names = ", ".join(key.to_user_string() for key in plan.assets)
        self.progress.say(f"{names} {_short(plan)}")
        result = self._job.execute_in_process(
            WITH_OUR_LOGGER,
            instance=self._instance,
            asset_selection=list(plan.assets),
            partition_key=plan.partition_key,
            tags={**self._tags, **plan.tags},
            raise_on_error=False,
        )
        interruption.check()
        self._report.runs += 1
        self._report.notes += [told for told, serious in _of_checks(result) if not serious]
        if not (result.success and _all_passed(result)):
            self._report.failures += _failures(result, f"{names} {_short(plan)}".strip())
        self._report.failures += self._log.errors.take()
        return {key: self._count(result, key, plan.partitions) for key in plan.assets}

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
            if each.asset_key == key and _is_fault(each)
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


def _all_passed(result: dg.ExecuteInProcessResult) -> bool:
    return not any(map(_is_fault, result.get_asset_check_evaluations()))


def _is_fault(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Whether a check says that something is wrong; one that only warns is a note."""
    return not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR


def _short(plan: RunPlan) -> str:
    """What a run is about, for people: a partition, or an expert set."""
    if plan.keys is None:
        return ""
    if len(plan.keys) == 1:
        return f"[{plan.keys[0]}]"
    sets = sorted({key.split("|")[-1] for key in plan.keys})
    where = sets[0] if len(sets) == 1 else f"{len(sets)} expert sets"
    return f"[{where}, {len(plan.keys)} partitions]"


def _failures(result: dg.ExecuteInProcessResult, where: str) -> list[str]:
    """One message for each step that failed, for a blocking check what it found; never none."""
    failed_checks = [each for each in result.get_asset_check_evaluations() if _is_fault(each)]
    told = [told for told, serious in _of_checks(result) if serious]
    for event in result.all_events:
        data: Any = event.event_specific_data
        if event.is_step_failure and not (failed_checks and _is_check(data.error)):
            failure = data.user_failure_data
            told += _of_step(event, where, failure) or [f"{where}: {_cause(data.error)}"]
    if not told:
        errors = [e.job_failure_data.error for e in result.all_events if e.is_job_failure]
        told += [f"{where}: {_cause(error)}" for error in errors]
    return told or [f"{where}: the run failed; see the log"]


def _of_checks(result: dg.ExecuteInProcessResult) -> Iterator[tuple[str, bool]]:
    """What the checks of a run found, partition by partition, and whether it is a fault."""
    found = [each for each in result.get_asset_check_evaluations() if not each.passed]
    by_partition = {each.asset_key for each in found if each.partition is not None}
    for each in found:
        if each.partition is None and each.asset_key in by_partition:
            continue
        partition, serious = f" [{each.partition}]" if each.partition else "", _is_fault(each)
        what = f"check {each.check_name} {'failed' if serious else 'warns'}"
        told = f"{each.asset_key.to_user_string()}{partition}: {what}: {_problems(each)}"
        yield told, serious


def _of_step(event: dg.DagsterEvent, where: str, failure: Any) -> list[str]:
    """What a step says of its failure: for each of its partitions, where it says that."""
    if failure is None:
        return []
    by_partition = failure.metadata.get(FAILED)
    if by_partition is None:
        return [f"{where}: {failure.description}"]
    asset = event.step_key.replace("__", "/") if event.step_key else where
    return [f"{asset} [{key}]: {message}" for key, message in by_partition.value.items()]


def _problems(evaluation: dg.AssetCheckEvaluation) -> str:
    """What a check of one partition found, whichever way it was reported."""
    found = evaluation.metadata.get("problems") or evaluation.metadata.get(
        evaluation.partition or ""
    )
    return str(found.value) if found else "see its metadata"


def _is_check(error: Any) -> bool:
    return error is not None and error.cls_name == "DagsterAssetCheckFailedError"


def _cause(error: Any) -> str:
    """The innermost message of a serialized error."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "unknown error"
