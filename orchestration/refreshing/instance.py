"""Dagster's instance for a refresh and for the commands that tell it something."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from yaml import YAMLError

from assets.frame.dagster_internals import CheckError, DagsterSqliteStorage, InstanceRef
from merge_ops.errors import Fault, SettingsError
from orchestration.settings import Settings, check_dagster_home

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


def open_instance(settings: Settings) -> dg.DagsterInstance:
    """Open Dagster's instance in DAGSTER_HOME; make it when it is not there (prepare_home)."""
    _make_home(settings)
    home = str(settings.dagster_home)
    with _told_in_a_line():
        reference = InstanceRef.from_dir(home, overrides=IN_PROCESS)
        storage = reference.storage_data
        if storage is not None and storage.class_name == DagsterSqliteStorage.__name__:
            kept = {"module": KEPT, "class": "KeptSqliteStorage", "config": {"base_dir": home}}
            overrides = {**IN_PROCESS, "storage": {"custom": kept}}
            reference = InstanceRef.from_dir(home, overrides=overrides)
        return dg.DagsterInstance.from_ref(reference)


@contextmanager
def _told_in_a_line() -> Iterator[None]:
    try:
        yield
    except (dg.DagsterError, CheckError, YAMLError, RecursionError, UnicodeError) as error:
        said = str(error).partition(". Expected:")[0].removeprefix("Failure condition: ")
        told = f"holds a dagster.yaml that Dagster cannot use: {' '.join(said.split())[:500]}"
        raise SettingsError("the environment", [Fault("DAGSTER_HOME", told)]) from error
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        # SQLAlchemy 2.1 takes `postgresql://` for psycopg 3; `ronghe[team]` brings psycopg2.
        told = (
            "holds a dagster.yaml with a `postgresql://` address, which needs the package psycopg;"
            " write `postgresql+psycopg2://` (below postgres_db: `scheme: postgresql+psycopg2`)"
        )
        raise SettingsError("the environment", [Fault("DAGSTER_HOME", told)]) from error


def prepare_home(settings: Settings) -> None:
    """Make DAGSTER_HOME, with the configuration from the project's folder when it has one.

    Raises SettingsError where Dagster cannot use the folder, or the configuration in it.
    """
    _make_home(settings)
    with _told_in_a_line():
        reference = InstanceRef.from_dir(str(settings.dagster_home))
        with dg.DagsterInstance.from_ref(reference):
            pass


def _make_home(settings: Settings) -> None:
    check_dagster_home(settings.dagster_home)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    path, project = settings.dagster_home / "dagster.yaml", Path("dagster.yaml")
    if not path.exists():
        path.write_bytes(project.read_bytes() if project.is_file() else MINIMAL)
