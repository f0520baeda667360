"""One refresh at a time on an instance, and no run left standing by one that was stopped."""

import fcntl
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from merge_ops.errors import RongheError
from orchestration.leftovers import remove_leftovers
from resources.locks import holder_of

TAG = "ronghe/refresh"
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.CANCELING,
]


class RefreshRunningError(RongheError):
    """Another refresh is running on the same instance."""


def run_tags(home: Path) -> dict[str, str]:
    """Tag an in-process run: whose it is, and that the daemon need not start it again."""
    return {TAG: f"{socket.gethostname()}:{home}", "dagster/max_retries": "0"}


@contextmanager
def only_refresh(instance: dg.DagsterInstance, home: Path) -> Iterator[None]:
    """Hold the lock of this DAGSTER_HOME; what earlier refreshes left unfinished is failed.

    A run whose process is gone would otherwise count as in progress for ever, and its partitions
    would never be asked for again; so runs of this refresh that a signal stopped are canceled.
    Raises RefreshRunningError.
    """
    path = home / "refresh.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefreshRunningError(
                f"another `ronghe refresh` is running on {home}: {holder_of(path)}; wait for it to"
                " end, or end it"
            ) from None
        remove_leftovers()
        for run in _unfinished(instance, home):
            instance.report_run_failed(run, "The process that ran this refresh is gone.")
        try:
            yield
        except BaseException:
            for run in _unfinished(instance, home):
                instance.report_run_canceled(run, "The refresh that ran this was stopped.")
            raise


def _unfinished(instance: dg.DagsterInstance, home: Path) -> list[dg.DagsterRun]:
    tags = {TAG: run_tags(home)[TAG]}
    return list(instance.get_runs(filters=dg.RunsFilter(tags=tags, statuses=UNFINISHED)))
