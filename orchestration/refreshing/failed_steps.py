"""What failed in a Dagster run, as messages: one for each step, for a check what it found."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.evidence.gate_checks import NAMES, NOT_JUDGED
from assets.frame.batches import FAILED
from assets.step_failures import told_of


def failures_of(result: dg.ExecuteInProcessResult, where: str) -> list[str]:
    """One message for each step that failed, for a blocking check what it found; never none."""
    failed_checks = [each for each in result.get_asset_check_evaluations() if is_fault(each)]
    told = [told for told, serious in found_by_checks(result) if serious]
    for event in result.all_events:
        data: Any = event.event_specific_data
        if event.is_step_failure and not (failed_checks and _is_check(data.error)):
            failure = data.user_failure_data
            told += _of_step(event, where, failure) or [f"{where}: {told_of(data.error)}"]
    if not told:
        errors = [e.job_failure_data.error for e in result.all_events if e.is_job_failure]
        told += [f"{where}: {told_of(error)}" for error in errors]
    return told or [f"{where}: the run failed; see the log"]


def found_by_checks(result: dg.ExecuteInProcessResult) -> Iterator[tuple[str, bool]]:
    """What the checks of a run found, partition by partition, and whether it is a fault."""
    every = result.get_asset_check_evaluations()
    found = [each for each in every if not each.passed and NOT_JUDGED not in each.metadata]
    by_partition = {each.asset_key for each in found if each.partition is not None}
    for each in found:
        if each.partition is None and each.asset_key in by_partition:
            continue
        partition, serious = f" [{each.partition}]" if each.partition else "", is_fault(each)
        what = f"check {each.check_name} {_how(each, serious)}"
        told = f"{each.asset_key.to_user_string()}{partition}: {what}: {_problems(each)}"
        yield told, serious


def _how(evaluation: dg.AssetCheckEvaluation, serious: bool) -> str:
    if evaluation.check_name in NAMES and evaluation.severity == dg.AssetCheckSeverity.ERROR:
        return "failed, and the champion stays"
    return "failed" if serious else "warns"


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


def is_fault(evaluation: dg.AssetCheckEvaluation) -> bool:
    """Whether a check says that something is wrong; one that only warns is a note.

    So is a check of the gate: it has judged, the champion is as good as before, and to ask again
    would change nothing.
    """
    if evaluation.passed or evaluation.check_name in NAMES:
        return False
    return evaluation.severity == dg.AssetCheckSeverity.ERROR
