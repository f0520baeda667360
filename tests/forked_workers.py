"""`pytest --workers N`: what was collected once is run by N forks, file by file.

To collect eight thousand tests takes twenty seconds of CPU time, and the packages that tests import
take ten more. Here one process does both and then forks its workers, which share that memory. Each
takes the next file when it has done one; what it reports goes to the first process, which shows it.
A worker that dies fails the test it was at, and another goes on with the rest.
"""

import atexit
import contextlib
import gc
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import groupby
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import pytest

HEAVY = (
    "torch", "transformers", "transformers.modeling_utils", "safetensors.torch", "tokenizers",
    "transformers.models.auto.modeling_auto", "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2", "dagster", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "scipy.stats", "boto3", "s3fs", "pyarrow.parquet",
    "datasets", "lm_eval.evaluator", "orchestration.definitions", "orchestration.commands.cli",
)  # fmt: skip
"""What many files import while their tests run: imported before the forks."""
MANY = 30
"""Files, of which some need them."""
SELDOM = (20_000, 20, 50)
"""Objects, and rounds, until the next look for garbage: as seldom, tests take a tenth less time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    told = "run the files of tests in so many forks of this process"
    parser.addoption("--workers", type=int, default=1, metavar="N", help=told)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in forks where more than one is asked for."""
    chosen = session.config.option
    if chosen.workers < 2 or chosen.collectonly or chosen.usepdb:
        return None
    if session.testsfailed and not chosen.continue_on_collection_errors:
        return None  # pytest's own loop says so
    run = Run(session)
    if len(run.files) >= MANY:
        _import_heavy()
    if threading.active_count() > 1:
        raise pytest.UsageError("this process has threads, and a fork of it would lack them")
    if len(run.files) >= MANY:
        from tests.forks import begin_server  # torch, which few files need

        begin_server()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    run.until_done(chosen.workers)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Look for no garbage while tests are collected: there is next to none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def _import_heavy() -> None:
    for name in HEAVY:
        with contextlib.suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(name)


class Worker:
    """A fork, as the first process sees it: what it took, and how far it is."""

    def __init__(self, number: int, reports: Connection, process: int) -> None:
        self.number, self.reports, self.process = number, reports, process
        self.taken: list[int] = []
        """Tests that it has taken and not finished, in order, as places in the session."""


class Run:
    """One run: the files, the queue of those that nobody has taken, and the workers."""

    def __init__(self, session: pytest.Session) -> None:
        self.session = session
        places = range(len(session.items))
        files = groupby(places, key=lambda place: session.items[place].path)
        self.files = [list(each) for _, each in files]
        self.queue, into = os.pipe()
        os.write(into, b"".join(n.to_bytes(4, "little") for n in range(len(self.files))))
        os.close(into)  # it holds less than a pipe does; a reader at the end gets nothing
        self.hook = session.config.hook
        self.factory: Any = session.config._tmp_path_factory  # type: ignore[attr-defined]
        self.factory.getbasetemp()
        self.working: list[Worker] = []
        self.begun = self.finished = 0

    def until_done(self, workers: int) -> None:
        """Start the workers and hand on what they report until all tests are over."""
        try:
            for _ in range(min(workers, len(self.files))):
                self._start([])
            while self.working and not self._is_to_stop():
                for ready in wait([each.reports for each in self.working]):
                    (worker,) = (each for each in self.working if each.reports is ready)
                    self._hear(worker)
        finally:
            for each in self.working:
                each.reports.close()
                os.kill(each.process, signal.SIGINT)
            for each in self.working:
                os.waitpid(each.process, 0)
        if self.session.shouldfail:
            raise self.session.Failed(self.session.shouldfail)
        if self.session.shouldstop:
            raise self.session.Interrupted(self.session.shouldstop)
        assert self.finished == len(self.session.items), "tests were lost"

    def _is_to_stop(self) -> bool:
        return bool(self.session.shouldfail or self.session.shouldstop)

    def _start(self, first: list[int]) -> None:
        """Fork a worker that begins with these tests."""
        reports, sender = Pipe(duplex=False)
        number = self.begun
        self.begun += 1
        sys.stdout.flush()
        process = os.fork()
        if not process:
            reports.close()
            _become_worker(self, number, sender, first)
        sender.close()
        worker = Worker(number, reports, process)
        worker.taken = list(first)
        self.working.append(worker)

    def _hear(self, worker: Worker) -> None:
        """Hand on one report of a worker, or see that it has ended."""
        what: str = "end"
        told: Any = None
        with contextlib.suppress(EOFError):
            what, told = worker.reports.recv()
        match what:
            case "end":
                self._ended(worker)
            case "took":
                worker.taken += self.files[told]
            case "start":
                self.hook.pytest_runtest_logstart(**told)
            case "report":
                made = self.hook.pytest_report_from_serializable
                report = made(config=self.session.config, data=told)
                self.hook.pytest_runtest_logreport(report=report)
            case "finish":
                worker.taken.pop(0)
                self.finished += 1
                self.hook.pytest_runtest_logfinish(**told)
            case "warning":
                message, category, file, line, where = told
                found = warnings.WarningMessage(message, category, file, line)
                self.hook.pytest_warning_recorded.call_historic(
                    kwargs={"warning_message": found, **where}
                )

    def _ended(self, worker: Worker) -> None:
        """Take a worker off; where it died amid a test, that fails, and a fork does the rest."""
        self.working.remove(worker)
        worker.reports.close()
        status = os.waitstatus_to_exitcode(os.waitpid(worker.process, 0)[1])
        if status == 0 and not worker.taken:
            return
        if not worker.taken:
            raise RuntimeError(f"worker {worker.number} ended with status {status} after its tests")
        place, *rest = worker.taken
        item = self.session.items[place]
        told = f"worker {worker.number} ended with status {status} in this test"
        where = (item.location[0], item.location[1], item.location[2])
        report = pytest.TestReport(item.nodeid, where, {}, "failed", told, "call")
        self.hook.pytest_runtest_logreport(report=report)
        self.finished += 1
        self._start(rest)


def _become_worker(run: Run, number: int, sender: Connection, first: list[int]) -> NoReturn:
    """Run tests until there are no more, in this fork. Never returns."""
    status = 1
    try:
        for each in run.working:
            each.reports.close()
        config = run.session.config
        _own_capture(config)
        _own_folder(run.factory, number)
        plugins = config.pluginmanager
        plugins.unregister(name="terminalreporter")
        own = Sender(config, sender)
        plugins.register(own)
        own.registered = True
        try:
            _work(run, sender, first)
        finally:
            run.session._setupstate.teardown_exact(None)  # what a stop left open
        config._ensure_unconfigure()
        status = 0
    except (KeyboardInterrupt, BrokenPipeError):  # the first process has said, or has gone
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _own_capture(config: pytest.Config) -> None:
    """Capture into files of this process alone; a fork shares those of its parent."""
    capturing: Any = config.pluginmanager.getplugin("capturemanager")
    capturing.stop_global_capturing()
    capturing.start_global_capturing()
    capturing.suspend_global_capture(in_=False)


def _own_folder(factory: Any, number: int) -> None:
    folder = factory.getbasetemp() / f"worker{number}"
    folder.mkdir(mode=0o700)
    factory._basetemp = folder


def _work(run: Run, sender: Connection, first: list[int]) -> None:
    """Run the first tests and then file after file."""
    _run_all(run.session, first)
    while number := os.read(run.queue, 4):
        file = int.from_bytes(number, "little")
        sender.send(("took", file))
        _run_all(run.session, run.files[file])


def _run_all(session: pytest.Session, places: list[int]) -> None:
    """Run tests; each is told which comes next, so that what both need stays.

    After the last one it is the session, and what is the session's stays. To look ahead for the
    next file would take it from workers that could begin it now.
    """
    items: list[Any] = [session.items[place] for place in places]
    for item, following in zip(items, [*items[1:], session], strict=False):
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


class Sender:
    """The plugin of a worker that sends what is reported."""

    def __init__(self, config: pytest.Config, sender: Connection) -> None:
        self.config, self.sender = config, sender
        self.registered = False
        """pytest tells a new plugin of all warnings that were there before: the first process knows
        them, of workers too where this is a fork that takes over from one that died."""

    def pytest_runtest_logstart(self, nodeid: str, location: Sequence[Any]) -> None:
        """A test begins."""
        self.sender.send(("start", {"nodeid": nodeid, "location": tuple(location)}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A phase of a test is over."""
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.sender.send(("report", data))

    def pytest_runtest_logfinish(self, nodeid: str, location: Sequence[Any]) -> None:
        """A test is over."""
        self.sender.send(("finish", {"nodeid": nodeid, "location": tuple(location)}))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: Any
    ) -> None:
        """A warning is shown at the end."""
        if not self.registered:
            return
        found, where = warning_message, {"when": when, "nodeid": nodeid, "location": location}
        said = (str(found.message), found.category, found.filename, found.lineno)
        self.sender.send(("warning", (*said, where)))
