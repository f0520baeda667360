"""Ctrl-C, SIGTERM and SIGHUP end a process in one way, whatever it does; the second at once."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.merges.merging import ROOT
from tests.servers.waiting import HANG_SECONDS, wait_until

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
FRAME = """
import os, sys, time
from pathlib import Path
from orchestration import interruption
interruption.install()
{body}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def started(body: str, *arguments: object, before: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """A process with our handlers that has printed `ready`."""
    program = FRAME.format(body=textwrap.dedent(body))
    process = subprocess.Popen(
        [*before, sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", process.communicate()
    return process


def ended(process: "subprocess.Popen[str]", *numbers: signal.Signals) -> tuple[int, str]:
    """Send signals; returns the exit status and what was said."""
    for number in numbers:
        process.send_signal(number)
    _, told = process.communicate(timeout=HANG_SECONDS)
    return process.returncode, told


WAITS = """
try:
    print("ready", flush=True)
    time.sleep(3600)
except interruption.StopRequested as stopped:
    interruption.end(stopped.number)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_each_signal_has_its_status_and_one_line(number):
    code, told = ended(started(WAITS), number)
    assert code == 128 + number
    assert told.count("ronghe: stopped (") == 1
    assert len(told.strip().splitlines()) == 1


def test_a_signal_that_was_ignored_at_the_start_stays_ignored():
    body = """
    print("ready", flush=True)
    sys.stdin.readline()
    """
    program = FRAME.format(body=textwrap.dedent(body))
    process = subprocess.Popen(
        ["nohup", sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.communicate("\n", timeout=HANG_SECONDS)
    assert process.returncode == 0


def test_unwinding_that_hangs_is_cut_short(place):
    """A thread that computes on, and a lock that nobody gives back: folders and children go."""
    body = """
    import subprocess, threading
    from merge_ops.working_folders import make_working_folder
    interruption.PATIENCE = 0.2
    folder = make_working_folder(Path(sys.argv[1]))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(sys.argv[1], "child").write_text(str(child.pid))
    lock = threading.Lock()
    lock.acquire()
    try:
        print("ready", flush=True)
        time.sleep(3600)
    finally:
        lock.acquire()
    """
    code, told = ended(started(body, place), signal.SIGTERM)
    assert code == 143
    assert told.count("ronghe: stopped (SIGTERM)") == 1
    assert [each.name for each in place.iterdir()] == ["child"]
    child = (place / "child").read_text()
    wait_until(lambda: is_gone(child), "an end of the child")


def is_gone(pid):
    """Whether a process is gone: the kernel takes a moment for one that was killed."""
    try:
        state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def test_the_second_signal_ends_at_once(place):
    body = """
    from merge_ops.working_folders import make_working_folder
    make_working_folder(Path(sys.argv[1]))
    interruption.PATIENCE = 3600
    try:
        print("ready", flush=True)
        time.sleep(3600)
    finally:
        print("unwinding", flush=True)
        time.sleep(3600)
    """
    process = started(body, place)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "unwinding\n"
    code, told = ended(process, signal.SIGINT)
    assert code == 130
    assert "Traceback" not in told
    assert list(place.iterdir()) == []


def test_an_exception_that_is_swallowed_is_raised_again_where_it_is_asked_for():
    body = """
    try:
        print("ready", flush=True)
        time.sleep(3600)
    except BaseException:
        pass
    try:
        interruption.check()
    except interruption.StopRequested as stopped:
        interruption.end(stopped.number)
    """
    assert ended(started(body), signal.SIGINT)[0] == 130


def test_an_exception_that_the_interpreter_drops_is_raised_again(place):
    """As happens where a signal comes while an object is collected."""
    body = """
    interruption.PATIENCE = 3600
    class Collected:
        def __del__(self):
            print("ready", flush=True)
            time.sleep(3600)
    try:
        Collected()
        time.sleep(3600)
    except interruption.StopRequested as stopped:
        Path(sys.argv[1], "unwound").touch()
        interruption.end(stopped.number)
    """
    code, told = ended(started(body, place), signal.SIGTERM)
    assert code == 143
    assert (place / "unwound").exists()
    assert len(told.strip().splitlines()) == 1


def test_a_few_steps_are_not_torn_apart(place):
    body = """
    import signal
    try:
        with interruption.held():
            print("ready", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            Path(sys.argv[1], "first").touch()
            Path(sys.argv[1], "second").touch()
        Path(sys.argv[1], "third").touch()
    except interruption.StopRequested as stopped:
        interruption.end(stopped.number)
    """
    assert ended(started(body, place))[0] == 143
    assert sorted(each.name for each in place.iterdir()) == ["first", "second"]


def test_what_fails_in_a_held_block_is_not_hidden():
    body = """
    import signal
    try:
        with interruption.held():
            print("ready", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("the disk is full")
    except OSError as error:
        sys.stderr.write(str(error))
        sys.exit(7)
    """
    code, told = ended(started(body))
    assert (code, told) == (7, "the disk is full")


def test_a_forked_child_ends_by_the_signal_and_touches_nothing(place):
    body = """
    import signal
    from merge_ops.working_folders import make_working_folder
    folder = make_working_folder(Path(sys.argv[1]))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"x")
        time.sleep(3600)
    os.read(reading, 1)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM, status
    assert folder.is_dir()
    print("ready", flush=True)
    """
    assert ended(started(body, place))[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_up_is_no_exception(number, place):
    """The signal comes in the middle of an import that makes an ImportError of everything."""
    (place / "typer.py").write_text(
        "import os, signal, sys\n"
        "try:\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    import time; time.sleep(3600)\n"
        "except BaseException as error:\n"
        "    raise ImportError('multiarray failed to import') from error\n"
    )
    program = f"import sys; sys.path.insert(0, {str(place)!r})\n"
    program += "from orchestration.commands.start import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "plan", "x.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + number
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_the_first_module_imports_nothing_that_takes_time():
    program = "import sys; import orchestration.commands.start; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"typer", "numpy", "rich", "typing", "pathlib", "threading", "re"}
    assert heavy & set(done.stdout.split()) == set()
