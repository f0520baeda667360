"""A limited child: what it has and has not, how it ends, and that its end is one clear error."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from merge_ops.children import own_folders
from merge_ops.children.limited_child import LimitedChild
from merge_ops.errors import ChildEndedError, ChildRaisedError, RongheError
from merge_ops.working_folders import sweep
from tests.servers.waiting import wait_until

MODULE = "tests.child_programs"
ROOT = Path(__file__).parents[3]
MEMORY = 256 << 20


@pytest.fixture(scope="module")
def child():
    with LimitedChild(MODULE, memory=MEMORY, cpu_seconds=30, file_bytes=1 << 20) as made:
        yield made


def ask(child, verb, doing="reads pickles of model X", **rest):
    limits = {key: rest.pop(key) for key in ("memory", "cpu_seconds", "tell") if key in rest}
    return child.ask({"do": verb, **rest}, doing, **limits)


def test_one_child_answers_many_requests(child):
    told = []
    first = ask(child, "echo", value="融合", tell=told.append)
    second = ask(child, "echo", value=[1, None], tell=told.append)
    assert (first["back"], second["back"]) == ("融合", [1, None])
    assert first["process"] == second["process"]
    starts = child.starts
    with pytest.raises(ChildRaisedError, match=r"^the child that reads pickles of model X failed"):
        ask(child, "raise")
    assert ask(child, "echo", value=1)["process"] == first["process"]
    assert child.starts == starts


def test_what_is_told_on_the_way_comes_in_order(child):
    told = []
    child.ask({"do": "echo", "value": 0, "tell": [1, {"a": 2}]}, "echoes", tell=told.append)
    assert told == [1, {"a": 2}]


def test_it_has_no_secret_no_descriptor_and_every_limit(monkeypatch, tmp_path):
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "secret-1",
        "HF_TOKEN": "secret-2",
        "HTTPS_PROXY": "http://user:secret-3@proxy",
        "PYTHONPATH": str(tmp_path),
        "SSH_AUTH_SOCK": "/secret-4",
        "CUDA_SECRET": "secret-5",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "private").open("w") as private:
        os.set_inheritable(private.fileno(), True)
        with LimitedChild(MODULE, memory=MEMORY, cpu_seconds=30, file_bytes=1 << 20) as child:
            told = ask(child, "environment")
    assert not any(name in told["environment"] for name in secrets)
    assert "secret" not in json.dumps(told)
    assert told["environment"]["HOME"] == told["folder"] != os.environ["HOME"]
    assert not [each for each in told["descriptors"] if "private" in each]
    limits = told["limits"]
    assert (limits["DATA"], limits["FSIZE"], limits["CORE"]) == (MEMORY, 1 << 20, 0)
    assert 0 < limits["NOFILE"] <= 4096
    assert 30 <= limits["CPU"] <= 40
    assert told["group"]
    assert not Path(told["folder"]).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the audit hook stands alone elsewhere")
def test_it_reaches_no_network_and_starts_no_process(child):
    with socket.create_server(("127.0.0.1", 0)) as server:
        told = ask(child, "network", port=server.getsockname()[1])
    assert set(told.values()) <= {"PermissionError", "refused", "gaierror"}, told


@pytest.mark.parametrize(
    ("verb", "rest", "cause"),
    [
        ("memory", {}, r"out of memory \(limit 0.25 GiB\)"),
        ("native_memory", {}, r"out of memory \(limit 0.25 GiB\)"),
        ("wrapped_memory", {}, r"out of memory \(limit 0.25 GiB\)"),
        ("panic", {}, "PanicException: regex failed"),
        ("leave", {}, "it left with status 7: had enough"),
        ("babble", {}, "it answered what is no answer"),
        (
            "signal",
            {"number": signal.SIGKILL},
            r"it was killed \(SIGKILL\), as the kernel d",
        ),
        ("signal", {"number": signal.SIGSEGV}, r"it crashed \(SIGSEGV; limit 0.25 GiB of memory"),
        ("spin", {"cpu_seconds": 0}, r"it took more than 0 s of CPU time \(SIGXCPU\)"),
    ],
)
def test_its_end_is_one_error_that_names_the_model(child, verb, rest, cause):
    starts = child.starts
    with pytest.raises(
        ChildEndedError, match=rf"^the child that reads pickles of model X ended: {cause}"
    ) as caught:
        ask(child, verb, **rest)
    assert isinstance(caught.value, RongheError)
    assert ask(child, "echo", value="next")["back"] == "next"  # a new one serves the next
    assert child.starts <= starts + 2


def test_hidden_packages_are_as_if_they_were_not_installed(child):
    with LimitedChild(MODULE, memory=MEMORY, cpu_seconds=30, hidden=("blake3",)) as other:
        assert ask(other, "look_for", package="blake3") == {"found": False, "version": None}
        assert ask(other, "look_for", package="numpy")["found"]
    assert ask(child, "look_for", package="blake3")["version"]


def test_memory_of_one_request_may_be_more_or_less(child):
    with pytest.raises(ChildEndedError, match=r"out of memory \(limit 0.125 GiB\)"):
        ask(child, "memory", memory=128 << 20)


def test_a_file_over_its_limit_is_refused(child):
    with pytest.raises(ChildRaisedError, match=r"OSError.*File too large"):
        ask(child, "file", size=2 << 20)
    assert ask(child, "file", size=1 << 10) == {}


def test_another_thread_can_end_it(child):
    begun = threading.Event()
    stopper = threading.Thread(target=lambda: (begun.wait(), child.kill()))
    stopper.start()
    with pytest.raises(ChildEndedError, match="SIGKILL"):
        ask(child, "sleep", tell=lambda _: begun.set())
    stopper.join()


def test_a_child_outlives_the_thread_that_started_it():
    with LimitedChild(MODULE, memory=MEMORY, cpu_seconds=30) as child:
        told = []
        starter = threading.Thread(target=lambda: told.append(ask(child, "echo", value=1)))
        starter.start()
        starter.join()
        assert ask(child, "echo", value=2)["process"] == told[0]["process"]


PARENT = """
import sys
from merge_ops.children.limited_child import LimitedChild
child = LimitedChild("tests.child_programs", memory=1 << 28, cpu_seconds=600)
def show(told):
    print(told["process"], told["folder"], flush=True)
child.ask({"do": sys.argv[1]}, "sleeps", tell=show)
"""


def is_running(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are seen in /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_parent_and_its_folder_goes_with_the_next(tmp_path, monkeypatch, number):
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, "stuck"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    assert parent.stdout is not None
    process, folder = parent.stdout.readline().split()
    assert is_running(int(process))
    parent.send_signal(number)
    parent.communicate()
    wait_until(lambda: not is_running(int(process)), "the end of the child")
    assert Path(folder).exists() == (number != signal.SIGINT)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sweep()
    assert list(tmp_path.iterdir()) == []


def test_folders_of_the_living_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with own_folders.OwnFolder() as path:
        (path / "large").write_bytes(b"x")
        sweep()
        assert (path / "large").exists()
        with own_folders.OwnFolder() as other:
            assert path.exists()
            assert other.exists()
        assert not other.exists()
    assert not path.exists()
