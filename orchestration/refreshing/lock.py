"""One refresh at a time on an instance, and no run left standing by one that was killed."""

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from merge_ops.errors import RongheError

TAG = "ronghe/refresh"
UNFINISHED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]


class RefreshRunningError(RongheError):
    """Another refresh is running on the same instance."""


def run_tags(home: Path) -> dict[str, str]:
    """Tag an in-process run: whose it is, and that the daemon need not start it again."""
    return {TAG: f"{socket.gethostname()}:{home}", "dagster/max_retries": "0"}


@contextmanager
def only_refresh(instance: dg.DagsterInstance, home: Path) -> Iterator[None]:
    """Hold the lock of this DAGSTER_HOME; what earlier refreshes left unfinished is failed.

    A run whose process is gone would otherwise count as in progress for ever, and its partitions
    would never be asked for again. Raises RefreshRunningError.
    """
    path = home / "refresh.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefreshRunningError(
                f"another `ronghe refresh` is running on {home}; wait for it to end"
            ) from None
        tags = {TAG: run_tags(home)[TAG]}
        filters = dg.RunsFilter(tags=tags, statuses=UNFINISHED)
        for run in instance.get_runs(filters=filters):
            instance.report_run_failed(run, "The process that ran this refresh is gone.")
        yield
