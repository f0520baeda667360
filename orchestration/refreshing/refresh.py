"""`ronghe refresh`: observe, then run whatever the automation conditions ask for, in this process.

The definitions and conditions are those of the daemon; only the loop around them is here.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.dagster_internals import InstanceRef
from orchestration.automation import OBSERVE_JOB
from orchestration.definitions import build_definitions
from orchestration.refreshing.lock import only_refresh, run_tags
from orchestration.refreshing.log import RunLog
from orchestration.refreshing.progress import RefreshProgress
from orchestration.refreshing.requests import Pending, RunPlan
from orchestration.refreshing.state import load_cursor, load_waiting, save
from orchestration.settings import Settings

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
MINIMAL = b"telemetry:\n  enabled: false\n"
WITH_OUR_LOGGER = {"loggers": {"console": {}}}  # without it Dagster adds its own to the terminal


@dataclass
class AssetCount:
    """An asset count holds its partitions: re-run, asked for in vain, and all live ones."""

    live: int
    rerun: set[str | None] = field(default_factory=set)
    failed: set[str | None] = field(default_factory=set)

    @property
    def untouched(self) -> int:
        """Live partitions that nothing was run for."""
        return self.live - len(self.rerun | self.failed)


@dataclass
class RefreshReport:
    """A refresh report says what was done. `failures` are for people; `runs` are Dagster runs."""

    counts: dict[str, AssetCount]
    failures: list[str] = field(default_factory=list)
    runs: int = 0
    seconds: float = 0.0

    @property
    def rerun(self) -> int:
        """Partitions that were materialized, over all assets."""
        return sum(len(count.rerun) for count in self.counts.values())


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open Dagster's instance in DAGSTER_HOME; make it when it is not there."""
    prepare_home(settings)
    reference = InstanceRef.from_dir(str(settings.dagster_home), overrides=IN_PROCESS)
    return dg.DagsterInstance.from_ref(reference)


def prepare_home(settings: Settings) -> None:
    """Make DAGSTER_HOME, with the configuration from the project's folder when it has one."""
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
    definitions, home = build_definitions(settings), settings.dagster_home
    with only_refresh(instance, home):
        log = RunLog(home / "logs" / "refresh.log")
        progress = RefreshProgress(console)
        work = _Refresh(instance, definitions, log, progress, run_tags(home))
        with log.everything(), progress:
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
    ) -> None:
        self.progress = progress
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
                save(self._instance, cursor, pending.waiting)
            if not plans:
                break
        self._report.seconds = time.perf_counter() - started
        return self._report

    def _observe(self) -> None:
        self.progress.say("looking at the upstream models")
        job = self._definitions.resolve_job_def(OBSERVE_JOB).with_logger_defs(self._log.loggers)
        result = job.execute_in_process(
            WITH_OUR_LOGGER, instance=self._instance, tags=self._tags, raise_on_error=False
        )
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
        self._report.runs += 1
        if plan.divisible and not result.success:  # what did succeed is found in the store
            again: dict[dg.AssetKey, set[str | None]] = {key: set() for key in plan.assets}
            for part in plan.divided():
                for key, partitions in self._execute(part).items():
                    again[key] |= partitions
            return again
        if not result.success:
            self._report.failures += _failures(result, f"{names} {_short(plan)}")
        return {key: self._count(result, key, plan.partitions) for key in plan.assets}

    def _count(
        self, result: dg.ExecuteInProcessResult, key: dg.AssetKey, asked: set[str | None]
    ) -> set[str | None]:
        """Count what a run did for one asset; returns what failed, itself or its check."""
        done = _materialized(result, key) & asked
        count = self._report.counts[key.to_user_string()]
        count.rerun |= done
        count.failed |= asked - done
        self.progress.advance(key, len(asked))
        bad = {
            each.partition
            for each in result.get_asset_check_evaluations()
            if each.asset_key == key and not each.passed
        }
        return (asked - done) | (bad & asked)

    def _live(self, key: dg.AssetKey) -> int:
        definition = self._graph.get(key).partitions_def
        return 1 if definition is None else len(definition.get_partition_keys())


def _materialized(result: dg.ExecuteInProcessResult, key: dg.AssetKey) -> set[str | None]:
    events = result.all_events
    return {e.partition for e in events if e.is_step_materialization and e.asset_key == key}


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
    failed_checks = [each for each in result.get_asset_check_evaluations() if not each.passed]
    by_partition = {each.asset_key for each in failed_checks if each.partition is not None}
    told = [
        f"{each.asset_key.to_user_string()}{f' [{each.partition}]' if each.partition else ''}:"
        f" check {each.check_name} failed: {_problems(each)}"
        for each in failed_checks
        if each.partition is not None or each.asset_key not in by_partition
    ]
    for event in result.all_events:
        data: Any = event.event_specific_data
        if event.is_step_failure and not (failed_checks and _is_check(data.error)):
            failure = data.user_failure_data
            told.append(f"{where}: {failure.description if failure else _cause(data.error)}")
    if not told:
        errors = [e.job_failure_data.error for e in result.all_events if e.is_job_failure]
        told += [f"{where}: {_cause(error)}" for error in errors]
    return told or [f"{where}: the run failed; see the log"]


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
