"""Checks of merged checkpoints, which stop whatever comes after a bad one."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.batches import goes_on, keys_of
from assets.frame.dagster_internals import AssetCheckTarget
from assets.frame.failures import clear_failures
from assets.frame.key_names import plain_key, with_own_keys
from assets.frame.run_settings import RunSettings
from assets.work import names
from assets.work.merging.looks import faults_of

if TYPE_CHECKING:
    from resources.store import ArtifactStore

CHECK = "checkpoint_is_sound"
MISSING = "nothing is published for this partition"


def build_checkpoint_check(
    asset: dg.AssetKey, partitions: dg.PartitionsDefinition | None
) -> dg.AssetChecksDefinition:
    """Build the check of one asset's checkpoints: bytes, tensors, loading, one forward pass.

    A run of a range of points, and be it of one, reports each for itself, so that only what comes
    after a bad point is stopped. (Dagster's own result of such a run belongs to no partition.)
    """

    @dg.asset_check(
        asset=plain_key(asset),
        name=CHECK,
        blocking=True,
        partitions_def=partitions,
        description="All bytes as published, every planned tensor there and finite, transformers"
        " loads it, and one forward pass gives finite numbers.",
    )
    @clear_failures()
    def checkpoint_is_sound(
        context: dg.AssetCheckExecutionContext, settings: RunSettings
    ) -> dg.AssetCheckResult:
        store, name = settings.store(), "/".join(asset.path)
        if partitions is None:
            problems = examine(store, name, None)
            shown: dict[str, Any] = {"problems": "; ".join(problems) or "none"}
            return dg.AssetCheckResult(passed=not problems, metadata=shown)
        keys = keys_of(context.op_execution_context, partitions)
        by_partition = {str(key): examine(store, name, str(key)) for key in keys}
        if not context.op_execution_context.has_partition_key:
            _report_each(context.op_execution_context, asset, by_partition)
        unsound = {key: "; ".join(faults) for key, faults in by_partition.items() if faults}
        shown = {**unsound, "sound": len(keys) - len(unsound)}
        # Where scores follow in the same run, each partition's own report stops its own.
        inner = context.op_execution_context
        alone = inner.has_partition_key or not goes_on(inner, asset)
        severity = dg.AssetCheckSeverity.ERROR if alone else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckResult(passed=not unsound, severity=severity, metadata=shown)

    return with_own_keys(checkpoint_is_sound, [asset])


def report_checks(
    context: dg.AssetExecutionContext,
    settings: RunSettings,
    asset: dg.AssetKey,
    keys: Sequence[str],
) -> None:
    """Check partitions from within the step that made them, where the check's own will not run."""
    store, name = settings.store(), "/".join(asset.path)
    by_partition = {str(key): examine(store, name, str(key)) for key in keys}
    _report_each(context.op_execution_context, asset, by_partition)


def examine(store: "ArtifactStore", asset: str, partition: str | None) -> list[str]:
    """Return everything wrong with the checkpoint of a name; nothing of a sound or virtual one."""
    artifact = names.resolve(store, asset, partition)
    if artifact is None:
        return [MISSING]
    if artifact.virtual:
        return []  # nothing is written; it is looked at when it is merged into memory and scored
    damaged = store.verify(artifact)
    if damaged:
        way_out = "`ronghe verify --repair` sets it aside, and the next refresh makes it again"
        return [*damaged, way_out]
    called = f"checkpoint {asset}" if partition is None else f"checkpoint {asset} [{partition}]"
    return faults_of(store, artifact, called)


def _report_each(
    context: dg.OpExecutionContext, key: dg.AssetKey, problems: Mapping[str, Sequence[str]]
) -> None:
    """One evaluation for each partition, tied to the materialization it looked at."""
    inner: Any = context
    lines = {partition: "; ".join(faults) for partition, faults in problems.items()}
    for each in evaluations(inner.instance, key, CHECK, lines, True, inner.run.run_id):
        inner.log_event(each)


def evaluations(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    check: str,
    problems: Mapping[Any, str],
    blocking: bool = False,
    run: str = "",
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield one evaluation of a check for each partition, "" where it found no problem.

    Each is tied to the partition's last materialization; None stands for an asset without
    partitions. What does not block is a warning.
    """
    kind, partitions = dg.DagsterEventType.ASSET_MATERIALIZATION, set(problems) - {None}
    records: dict[Any, int] = {}
    if partitions:
        records.update(instance.get_latest_storage_id_by_partition(key, kind, partitions))
    if None in problems:
        for record in instance.get_asset_records([key]):
            last = record.asset_entry.last_materialization_storage_id
            records |= {None: last} if last is not None else {}
    severity = dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN
    for partition, problem in problems.items():
        target = None
        if partition in records:
            target = AssetCheckTarget(storage_id=records[partition], run_id=run, timestamp=0.0)
        yield dg.AssetCheckEvaluation(
            asset_key=key,
            check_name=check,
            passed=not problem,
            blocking=blocking,
            severity=severity,
            metadata={"problems": problem or "none"},
            partition=partition,
            target_materialization_data=target,
        )
