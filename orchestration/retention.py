"""What an idle daemon leaves is thrown away again: runs that looked and are not the last to.

The schedule looks at the upstream models every five minutes, by a run of its own, with an event log
and a folder of logs: 288 a day. Runs that have ended are deleted but the latest KEPT, and but those
whose observation is still a model's last: conditions compare with it. Ticks of schedules and
sensors are purged by Dagster itself, as dagster.yaml says. Runs that materialize are kept.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

KEPT = 24
"""Runs that only looked: two hours of them, for who asks what the last looks said."""
MOST_AT_ONCE = 100
"""Runs deleted in one tick, which has a minute; what years left goes within days."""

_ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


def forget_old_looks(
    instance: dg.DagsterInstance,
    job: str,
    asset: dg.AssetKey,
    kept: int = KEPT,
    most: int = MOST_AT_ONCE,
) -> int:
    """Delete ended runs of `job`, which observes `asset`, but the latest ones; returns how many.

    A run that holds the last observation of a partition of `asset` stays, however old.
    """
    ended = dg.RunsFilter(job_name=job, statuses=_ENDED)
    old = instance.get_runs(ended, limit=kept + most)[kept:]
    if not old:
        return 0
    needed = set(_runs_of_last_observations(instance, asset))
    forgotten = [run.run_id for run in old if run.run_id not in needed]
    for run_id in forgotten:
        instance.delete_run(run_id)
        _remove_logs(instance, run_id)
    return len(forgotten)


def _runs_of_last_observations(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Iterator[str]:
    latest = instance.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_OBSERVATION
    )
    ids = list(latest.values())
    for at in range(0, len(ids), MOST_AT_ONCE):
        wanted = dg.AssetRecordsFilter(asset_key=asset, storage_ids=ids[at : at + MOST_AT_ONCE])
        found = instance.fetch_observations(wanted, limit=MOST_AT_ONCE)
        yield from (record.run_id for record in found.records)


def _remove_logs(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove what Dagster leaves of a deleted run: an emptied SQLite file, and a folder of logs."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    place_of = getattr(instance.event_log_storage, "path_for_shard", None)
    if place_of is not None:
        path = Path(place_of(run_id))
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
    with contextlib.suppress(NotImplementedError, dg.DagsterInvariantViolationError):
        folder = Path(instance.storage_directory()) / run_id  # where storage is on this machine
        shutil.rmtree(folder, ignore_errors=True)
