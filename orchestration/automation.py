"""When things run: observe on a schedule, then whatever an observed change touches.

The daemon's sensor and `ronghe refresh` evaluate the same conditions.
"""

from typing import TYPE_CHECKING

import dagster as dg

from orchestration.retention import forget_old_looks

if TYPE_CHECKING:
    from assets.frame.dagster_internals import UnresolvedAssetJobDefinition

OBSERVE_JOB, UPSTREAM = "observe_upstream_models", dg.AssetKey("upstream_model")
OBSERVE_EVERY = "*/5 * * * *"


def when_inputs_change() -> dg.AutomationCondition:
    """Run a partition when it is new, when its code version changed, or when an input did.

    It is Dagster's `eager` with four differences. An input counts as updated when its data version
    changed, not when it was merely materialized again: that makes re-merges exact. What is missing
    at the first look is run too, so that a new recipe needs no push. A changed code version is
    waited for until this look, or an earlier one, has asked for it: that somebody else materialized
    the partition meanwhile does not say with which code. Partitions whose input failed a blocking
    check wait.
    """
    conditions = dg.AutomationCondition
    return (
        conditions.in_latest_time_window()
        & (_touched() | _other_code())
        & ~conditions.any_deps_missing()
        & ~conditions.any_deps_in_progress()
        & ~conditions.in_progress()
        & conditions.all_deps_blocking_checks_passed()
    ).with_label("when_inputs_change")


def when_any_input_changes() -> dg.AutomationCondition:
    """Run a summary of many partitions likewise; what is missing or failed does not hold it up.

    It is cheap, and what it sums up changes while it runs, here or in another process. So only that
    it was asked for ends a wish, and not that it was materialized by whomever.
    """
    conditions = dg.AutomationCondition
    touched = (
        (conditions.newly_missing() | conditions.any_deps_updated())
        .replace("newly_updated", conditions.data_version_changed())
        .since(conditions.newly_requested())
    )
    return (
        conditions.in_latest_time_window()
        & (touched | _other_code())
        & ~conditions.any_deps_in_progress()
        & ~conditions.in_progress()
    ).with_label("when_any_input_changes")


def when_steps_come() -> dg.AutomationCondition:
    """Run a window when it is new, or when any step of any training run came or changed.

    It is cheap, and what it says decides alone what is made again. A step that could not be pulled
    holds it up no more than one that is not there.
    """
    conditions = dg.AutomationCondition
    return (
        conditions.in_latest_time_window()
        & (_touched() | _other_code())
        & ~conditions.any_deps_in_progress()
        & ~conditions.in_progress()
    ).with_label("when_steps_come")


def _touched() -> dg.AutomationCondition:
    """True from when a partition is new, or an input has other data, until it is handled."""
    conditions = dg.AutomationCondition
    return (
        (conditions.newly_missing() | conditions.any_deps_updated())
        .since_last_handled()
        .replace("newly_updated", conditions.data_version_changed())
        .replace("initial_evaluation", conditions.newly_requested())
    )


def _other_code() -> dg.AutomationCondition:
    """True from when the code version changes until the asset is asked for."""
    changed = dg.AutomationCondition.code_version_changed()
    return changed.since(dg.AutomationCondition.newly_requested())


def when_it_can(condition: dg.AutomationCondition) -> dg.AutomationCondition:
    """Hold a condition that cannot be met for now: what it saw is remembered, nothing is run.

    An asset without any condition would forget, and what changed meanwhile would never be run.
    """
    missing = dg.AutomationCondition.missing()
    return condition & missing & ~missing


def observe_job(executor: dg.ExecutorDefinition | None) -> "UnresolvedAssetJobDefinition":
    """Define one run that looks at every upstream model. (A condition would launch one a model.)

    `executor` is where its step runs; None for where all steps do.
    """
    return dg.define_asset_job(
        OBSERVE_JOB,
        selection=dg.AssetSelection.assets(UPSTREAM),
        description="Look whether any upstream model changed; reads no weight that did not.",
        executor_def=executor,
    )


def observe_schedule(
    job: "UnresolvedAssetJobDefinition", observed: dg.AssetKey
) -> dg.ScheduleDefinition:
    """Observe every few minutes, by default, and forget the looks of long ago."""

    def look_again(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        forget_old_looks(context.instance, job.name, observed)
        return dg.RunRequest()

    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=OBSERVE_EVERY,
        execution_fn=look_again,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
