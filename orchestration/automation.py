"""When things run: observe on a schedule, then whatever an observed change touches.

The daemon's sensor and `ronghe refresh` evaluate the same conditions.
"""

from typing import TYPE_CHECKING

import dagster as dg

from orchestration.retention import forget_old_looks

if TYPE_CHECKING:
    from assets.dagster_internals import UnresolvedAssetJobDefinition

OBSERVE_JOB, UPSTREAM = "observe_upstream_models", dg.AssetKey("upstream_model")
SENSOR = "refresh_what_changed"
OBSERVE_EVERY = "*/5 * * * *"


def when_inputs_change() -> dg.AutomationCondition:
    """Run a partition when it is new, when its code version changed, or when an input did.

    It is Dagster's `eager` with three differences. An input counts as updated when its data version
    changed, not when it was merely materialized again: that makes re-merges exact. What is missing
    at the first look is run too, so that a new recipe needs no push. Partitions whose input failed
    a blocking check wait.
    """
    conditions = dg.AutomationCondition
    changed = conditions.newly_missing() | conditions.code_version_changed()
    return (
        conditions.eager()
        .replace("newly_missing", changed)
        .replace("newly_updated", conditions.data_version_changed())
        .replace("initial_evaluation", conditions.newly_requested())
        & conditions.all_deps_blocking_checks_passed()
    )


def when_any_input_changes() -> dg.AutomationCondition:
    """Run a summary of many partitions likewise; what is missing or failed does not hold it up."""
    conditions = dg.AutomationCondition
    return (
        conditions.eager()
        .without(~conditions.any_deps_missing())
        .replace("newly_missing", conditions.newly_missing() | conditions.code_version_changed())
        .replace("newly_updated", conditions.data_version_changed())
        .replace("initial_evaluation", conditions.newly_requested())
    )


def observe_job() -> "UnresolvedAssetJobDefinition":
    """Define one run that looks at every upstream model. (A condition would launch one a model.)"""
    return dg.define_asset_job(
        OBSERVE_JOB,
        selection=dg.AssetSelection.assets(UPSTREAM),
        description="Look whether any upstream model changed; reads no weight that did not.",
    )


def observe_schedule(job: "UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """Observe every few minutes, by default, and forget the looks of long ago."""

    def look_again(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        forget_old_looks(context.instance, OBSERVE_JOB, UPSTREAM)
        return dg.RunRequest()

    return dg.ScheduleDefinition(
        name="observe_upstream_models_schedule",
        job=job,
        cron_schedule=OBSERVE_EVERY,
        execution_fn=look_again,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluate every asset's condition, by default (Dagster's own default is off)."""
    return dg.AutomationConditionSensorDefinition(
        SENSOR,
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=10,
    )
