"""What failed in Dagster lately, for the site's page of changes."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.batches import FAILED
from assets.site.sections.changes import Failure

if TYPE_CHECKING:
    from dagster import DagsterInstance

MOST_RUNS = 50
"""Failed runs that are looked at, the last ones first."""
MOST_PARTITIONS = 20
"""Partitions of one failed step that are told."""
LONGEST = 1500
"""Characters of a message."""


def recent_failures(instance: "DagsterInstance") -> list[Failure]:
    """List the steps that failed in the last failed runs; a partition each, the last run first."""
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=MOST_RUNS
    )
    return [failure for each in records for failure in _of_run(instance, each.dagster_run.run_id)]


def _of_run(instance: "DagsterInstance", run: str) -> Iterator[Failure]:
    kind = dg.DagsterEventType.STEP_FAILURE
    logged: Any = instance.all_logs(run, of_type=kind)
    for entry in logged:
        event = entry.get_dagster_event()
        at = datetime.fromtimestamp(entry.timestamp, UTC).isoformat(timespec="seconds")
        asset = (event.step_key or "").replace("__", "/")
        failure = event.event_specific_data.user_failure_data
        by_partition = failure.metadata.get(FAILED) if failure is not None else None
        if by_partition is not None:
            for partition, message in list(by_partition.value.items())[:MOST_PARTITIONS]:
                yield Failure(at, asset, str(partition), str(message)[:LONGEST])
        else:
            error: Any = event.event_specific_data.error
            told = failure.description if failure is not None else told_of(error)
            yield Failure(at, asset, "", str(told)[:LONGEST])


def told_of(error: Any) -> str:
    """Return what a serialized error of a step says: the first of ours, or else the innermost.

    What one of ours was caused by, as the OSError of a full disk, knows neither place nor advice.
    """
    ours = set(_names_of_ours())
    while error is not None and error.cause is not None and error.cls_name not in ours:
        error = error.cause
    return error.message.strip() if error is not None else "unknown error"


def _names_of_ours() -> Iterator[str]:
    from eval_ops.errors import EvalError
    from merge_ops.errors import RongheError
    from resources.errors import ResourceError

    kinds: list[type] = [EvalError, RongheError, ResourceError]
    while kinds:
        kind = kinds.pop()
        yield kind.__name__
        kinds += kind.__subclasses__()
