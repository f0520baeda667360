"""Fixtures that several packages' tests share. What a fixture needs is imported when it is used."""

import os
import shutil
import signal
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import subprocess

    from resources.store.artifact_store import ArtifactStore
    from tests.servers.storage_servers import S3Server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# What tests compute is tiny: slower on two threads, and much slower on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Limited children of all processes of this run are forks of one template (child_forks.py). The path
# of its socket must be short.
OWNER = "TESTS_OF_RONGHE"
if OWNER not in os.environ:
    short = "/tmp" if os.access("/tmp", os.W_OK) else None
    os.environ[OWNER] = f"{os.getpid()}:{tempfile.mkdtemp(prefix='ronghe-tests-', dir=short)}"


def pytest_unconfigure() -> None:
    """Remove the folder of what all processes of the tests share, and end what works there."""
    owner, folder = os.environ[OWNER].split(":", 1)
    if int(owner) == os.getpid():
        from tests.servers.storage_servers import stop_shared

        stop_shared(Path(folder))
        shutil.rmtree(folder, ignore_errors=True)


# Whoever starts the tests in the background, or by nohup, has these signals ignored, and so would
# every command that a test sends one to: it would never end.
if threading.current_thread() is threading.main_thread():
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

TEMPLATE: list["subprocess.Popen[bytes]"] = []

LONGEST = (
    "test_web_and_daemon.py", "test_refresh.py", "test_broken_parts.py", "test_team.py",
    "test_hostile.py", "test_contract.py", "test_ray.py", "test_wheel.py",
    "test_one_digest_one_file.py", "test_against_mergekit.py", "test_quickstart.py",
    "test_kill.py", "test_same_digest.py", "test_recipes_of_steps.py", "test_repair.py",
    "test_tied_forms.py", "test_arrays.py", "test_two_catalogs.py", "test_harness.py",
    "test_dare_against_mergekit.py", "test_killed_batch.py", "test_mutants.py",
    "test_commands.py", "test_adapter_experts.py", "test_browser.py", "test_later_scores.py",
    "test_architectures.py", "test_daemon_sensor.py", "test_against_mergekit_moe.py",
    "test_architectures_with_adapters.py", "test_faulty_store.py", "test_reuse_of_tensors.py",
    "test_model_references.py", "test_places_of_models.py",
    "test_image_adapters_against_diffusers.py", "test_adapters_against_peft.py",
    "test_merge_checks.py", "test_expected_tensors.py", "test_packed_experts.py", "test_resume.py",
    "test_folder_fuzz.py",
)  # fmt: skip
"""The longest files go first, so that no worker is left alone with one at the end.

Those that wait for daemons and servers, and those that only compute, take turns.
"""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start what many tests wait for, while one process collects them and other cores are idle."""
    if session.config.option.workers > 1 and not session.config.option.collectonly:
        from tests.child_forks import begin_template

        TEMPLATE.append(begin_template())


def pytest_collection_finish() -> None:
    """Wait for it: a process that is not collected is a warning."""
    while TEMPLATE:
        TEMPLATE.pop().wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, in the order above; the order within a file stays."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session", autouse=True)
def forked_children() -> None:
    """Have limited children start in milliseconds."""
    from tests.child_forks import fork_children

    fork_children()


@pytest.fixture(scope="session")
def seaweedfs() -> "S3Server":
    """A real S3 server, started when the first test wants it; workers share it."""
    from tests.servers.storage_servers import shared_seaweedfs

    return shared_seaweedfs()


@pytest.fixture
def s3_root(seaweedfs: "S3Server", monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh `s3://` root; the environment leads to its server, for child processes too."""
    from tests.servers.storage_servers import BUCKET

    for name, value in seaweedfs.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}/根"


@pytest.fixture(params=["local", "seaweedfs"])
def store_root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URI of a fresh, empty store root: once a local folder, once on a real S3 server."""
    if request.param == "local":
        return (tmp_path / "store 根").as_uri()
    return request.getfixturevalue("s3_root")


@pytest.fixture
def store(store_root: str, tmp_path: Path) -> "ArtifactStore":
    """An artifact store on `store_root`."""
    from resources.store.artifact_store import ArtifactStore

    return ArtifactStore.open(store_root, cache=tmp_path / "cache")
