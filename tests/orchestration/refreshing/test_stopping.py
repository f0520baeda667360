"""A signal ends a refresh: no step is tried again, no run stands; who holds a lock is told."""

import os
import signal
import sqlite3
from pathlib import Path

import dagster as dg
import pytest

from orchestration.commands.machine_faults import machine_fault
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.lock import UNFINISHED, RefreshRunningError, only_refresh, run_tags
from orchestration.settings import load_settings
from tests.orchestration.projects.forked_programs import run_program

STEPS = """
import os, signal, sys
from pathlib import Path
import dagster as dg
from assets.frame.failures import RETRY_CRASHES
from orchestration import interruption
from orchestration.refreshing.lock import only_refresh, run_tags
from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import WITH_OUR_LOGGER
from orchestration.refreshing.step_signals import signals_end_the_refresh
from orchestration.settings import load_settings
where, number, home = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])

@dg.asset(retry_policy=RETRY_CRASHES)
def first():
    with (home / "tries").open("a") as file:
        file.write("x")
    if where == "step":
        os.kill(os.getpid(), number)

@dg.op
def between():
    pass

@dg.asset(deps=[first])
def second():
    (home / "second").touch()

@dg.logger
def quiet(_):
    import logging
    class Kill(logging.Handler):
        def emit(self, record):
            if where == "bookkeeping" and "STEP_OUTPUT" in record.getMessage():
                os.kill(os.getpid(), number)
    log = logging.Logger("quiet")
    log.addHandler(Kill())
    return log

interruption.install()
home.mkdir(exist_ok=True)
settings = load_settings({"DAGSTER_HOME": str(home)})
try:
    with open_instance(settings) as instance, only_refresh(instance, home):
        with signals_end_the_refresh():
            defs = dg.Definitions(assets=[first, second])
            job = defs.resolve_implicit_global_asset_job_def().with_logger_defs({"console": quiet})
            job.execute_in_process(
                WITH_OUR_LOGGER, instance=instance, tags=run_tags(home), raise_on_error=False
            )
            interruption.check()
except interruption.StopRequested as stopped:
    interruption.end(stopped.number)
"""


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("step", signal.SIGINT),
        ("step", signal.SIGTERM),
        ("step", signal.SIGHUP),
        ("bookkeeping", signal.SIGTERM),
    ],
)
def test_no_step_is_tried_again_and_no_run_stands(where, number, tmp_path):
    home = tmp_path / "dagster"
    done = run_program(STEPS, tmp_path, where, str(int(number)), str(home))
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.count("ronghe: stopped") == 1
    assert "Traceback" not in done.stderr
    assert (home / "tries").read_text() == "x"
    assert not (home / "second").exists()
    with open_instance(load_settings({"DAGSTER_HOME": str(home)})) as instance:
        (run,) = instance.get_runs()
        assert run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
        with only_refresh(instance, home):  # its lock is free
            pass


def test_the_other_refresh_is_named(tmp_path):
    settings = load_settings({"DAGSTER_HOME": str(tmp_path / "家")})
    with open_instance(settings) as instance, only_refresh(instance, settings.dagster_home):
        told = rf"another `ronghe refresh` is running on .*家: process {os.getpid()} \(`.* since 20"
        with (
            pytest.raises(RefreshRunningError, match=told),
            only_refresh(instance, settings.dagster_home),
        ):
            pass


def test_runs_of_a_refresh_that_ends_by_an_error_are_canceled(tmp_path):
    settings = load_settings({"DAGSTER_HOME": str(tmp_path)})
    stopped = RuntimeError("stopped")
    with open_instance(settings) as instance:
        holding = only_refresh(instance, tmp_path)
        holding.__enter__()
        run = dg.DagsterRun("job", tags=run_tags(tmp_path), status=dg.DagsterRunStatus.STARTED)
        instance.add_run(run)
        assert not holding.__exit__(RuntimeError, stopped, None)
        assert instance.get_runs()[0].status == dg.DagsterRunStatus.CANCELED
        assert not instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))


def test_a_database_that_another_process_holds_is_one_line(tmp_path):
    import sqlalchemy

    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as held:
        held.execute("create table t (x)")
    held.execute("begin exclusive")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
    with pytest.raises(sqlalchemy.exc.OperationalError, match="locked") as caught:
        engine.connect().execute(sqlalchemy.text("insert into t values (:x)"), {"x": "hidden"})
    held.close()
    told = machine_fault(RuntimeError("wrapped")) or machine_fault(caught.value)
    assert told == (
        "error: Dagster's database: database is locked; another process writes to it and does not"
        " end; stop that one, or wait"
    )
    engine.dispose()


def test_faults_of_the_machine_are_one_line():
    told = {
        OSError(28, "No space left on device", "/x/y"): "error: /x/y: No space left .*; free space",
        OSError(122, "Disk quota exceeded", "/x"): "error: /x: Disk quota exceeded; the quota of",
        OSError(
            30, "Read-only file system", "/x"
        ): "error: /x: Read-only .*; the disk is read-only",
        OSError(24, "Too many open files", "/x"): "error: /x: Too many .*ulimit -n",
        MemoryError(): "error: there is no memory left",
    }
    for error, line in told.items():
        with pytest.raises(AssertionError, match=line):
            raise AssertionError(machine_fault(error))
    assert machine_fault(ValueError("a slip of ours")) is None
    assert machine_fault(BrokenPipeError(32, "Broken pipe")) is None


def test_a_shell_whose_folder_was_removed_is_told_so(tmp_path, monkeypatch):
    gone = FileNotFoundError(2, "No such file or directory")
    assert machine_fault(gone) == "error: No such file or directory"
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    told = machine_fault(gone)
    monkeypatch.chdir(tmp_path)
    assert told == (
        "error: the folder of this shell: No such file or directory; it was removed: `cd` into"
        " another one"
    )


def test_a_home_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="Not a directory") as caught:
        open_instance(load_settings({"DAGSTER_HOME": str(tmp_path / "file" / "home")}))
    assert str(machine_fault(caught.value)).startswith(f"error: {Path(tmp_path, 'file')}")
