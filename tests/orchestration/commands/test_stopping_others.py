"""extract-lora, restore, verify and gc are stopped while they work: nothing is left half."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from resources.store.artifact_store import ArtifactStore
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.forked_programs import begin_program
from tests.servers.waiting import HANG_SECONDS

STOPPED = """
import importlib, sys, time
module, name, before = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1))
*path, name = name.split(".")
place = importlib.import_module(module)
for each in path:
    place = getattr(place, each)
plain, calls = getattr(place, name), 0
def slow(*arguments, **named):
    global calls
    calls += 1
    if calls > before:
        print("working", flush=True)
        time.sleep(3600)
    return plain(*arguments, **named)
setattr(place, name, slow)
from orchestration.commands.start import main
main()
"""
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def stopped(
    where: tuple[str, str, int], number: int, *command: object, env: Mapping[str, str]
) -> None:
    """Run a command until it calls a function for so many times and once more; stop it there."""
    said, says = os.pipe()
    folder = Path(env["TMPDIR"]).parent
    arguments = [str(each) for each in (*where, *command)]
    with open(says, "wb") as printed:
        process = begin_program(STOPPED, folder, *arguments, printed=printed, environment=env)
    with open(said, encoding="utf-8") as heard:
        first = heard.readline()
        assert first == "working\n", first + heard.read()
        os.kill(process.pid, number)
        told = heard.read()
    assert process.wait(HANG_SECONDS) == 128 + number, told
    process.communicate()
    assert told.count("ronghe: stopped") == 1
    assert "Traceback" not in told


def files_of(folder: Path) -> dict[str, bytes]:
    found = folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


LEFT = "0" * 31
"""How the ids of what a killed writer left begin; those of others are drawn."""


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with a model of two files, a name for it, and what a killed writer left."""
    made = ArtifactStore.open((tmp_path / "store").as_uri(), catalog="team")
    with made.attempt("model") as attempt:
        for file in ("config.json", "model.safetensors"):
            attempt.write_bytes(file, f"{file} whole".encode())
        made.point("model", "m", "model", attempt.publish().digest)
    old = time.time() - 3 * 86_400
    for number in range(2):
        left = tmp_path / "store" / "attempts" / f"{number:032x}" / "model.safetensors"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")
        os.utime(left, (old, old))
    return made


def of_store(store: ArtifactStore, temporary: Path) -> dict[str, str]:
    return {
        "RONGHE_STORE": store.uri,
        "RONGHE_CATALOG_NAME": "team",
        "TMPDIR": str(temporary),
        "HOME": str(temporary.parent),
    }


@BOTH
def test_extract_lora_leaves_no_half_adapter(number: int, tmp_path: Path, temporary: Path) -> None:
    family = factory.write_family(tmp_path / "models", factory.LLAMA, experts=1)
    place, command = tmp_path / "place", ("extract-lora", family.experts[0], family.base)
    hook = ("merge_ops.jobs.lora_extraction", "_decompose", 2)
    env = {"TMPDIR": str(temporary)}
    stopped(hook, number, *command, place / "out", "--rank", "2", env=env)
    assert not place.exists()
    assert list(temporary.iterdir()) == []


@BOTH
def test_restore_leaves_no_half_model(
    number: int, tmp_path: Path, store: ArtifactStore, temporary: Path
) -> None:
    place, before = tmp_path / "place", files_of(tmp_path / "store")
    env = of_store(store, temporary)
    hook = ("merge_ops.checkpoints", "FolderSink.open", 1)
    stopped(hook, number, "restore", "m", "--out", place / "out", env=env)
    assert not place.exists()
    assert list(temporary.iterdir()) == []
    assert files_of(tmp_path / "store") == before
    assert ronghe("restore", "m", "--out", place / "out", environment=env).returncode == 0
    assert (place / "out" / "model.safetensors").read_bytes() == b"model.safetensors whole"


@BOTH
@pytest.mark.parametrize("options", [(), ("--repair",)])
def test_verify_changes_nothing_that_it_has_not_finished(
    number: int, options: tuple[str, ...], tmp_path: Path, store: ArtifactStore, temporary: Path
) -> None:
    file = store.get("model", store.digests("model")[0]).folder(checked=False) / "config.json"
    file.chmod(0o644)
    file.write_bytes(b"rotten")
    before, env = files_of(tmp_path / "store"), of_store(store, temporary)
    hook = ("resources.store.artifact_store", "ArtifactStore.verify", 0)
    stopped(hook, number, "verify", *options, env=env)
    assert files_of(tmp_path / "store") == before
    assert ronghe("verify", *options, environment=env).returncode == (0 if options else 1)


@BOTH
def test_gc_removes_no_published_file_and_the_next_removes_the_rest(
    number: int, tmp_path: Path, store: ArtifactStore, temporary: Path
) -> None:
    env, attempts = of_store(store, temporary), tmp_path / "store" / "attempts"
    stopped(("resources.store.attempts.gc", "_condemn", 1), number, "gc", env=env)
    model = store.resolve("model", "m")
    assert model is not None
    assert store.verify(model) == []
    old = time.time() - 3 * 86_400  # what gc itself wrote has its grace too
    for claim in attempts.glob(f"{LEFT}*.claim"):
        os.utime(claim, (old, old))
    assert ronghe("gc", environment=env).returncode == 0
    assert [path.name for path in attempts.iterdir() if path.name.startswith(LEFT)] == []
    assert store.verify(model) == []
