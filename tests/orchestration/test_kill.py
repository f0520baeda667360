"""kill -9 in the middle of a merge: nothing half-made is visible, and the next run finishes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from resources.store.artifact_store import ArtifactStore
from tests.child_forks import forking_environment
from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, make_project
from tests.servers.waiting import HANG_SECONDS, wait_until

SHAPE = factory.Shape("qwen2", layers=2, hidden=128, intermediate=12288, tied=True)  # 38 MB
UNSCORED = {key: value for key, value in TASK_ARITHMETIC.items() if key != "suite"}
RECIPE = {**UNSCORED, "sweep": {"lambda": [0.25, 0.5, 0.75, 1.0]}}
REFRESH = "from orchestration.commands.refresh_command import refresh; refresh()"


def start(environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """`ronghe refresh` as a process group of its own."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", REFRESH],
            cwd=ROOT,
            env={**os.environ, **forking_environment(), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def merged_bytes(store: Path, since: set[Path]) -> int:
    """Bytes of weights in attempts that began after `since` was listed."""
    files = set(store.glob("attempts/*/model.safetensors")) - since
    return sum(file.stat().st_size for file in files if file.exists())


def test_a_killed_merge_leaves_nothing_visible_and_the_next_run_finishes(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"task_arithmetic": RECIPE}, experts=2, shape=SHAPE)
    environment = {**project.environment, "HOME": os.environ["HOME"]}
    folder, store = tmp_path / "store", ArtifactStore.open(project.store)
    process = start(environment, tmp_path / "first.log")
    models: set[Path] = set()

    def merging() -> bool:
        """Whether the merge has begun; the process stands still while we look, or it might end."""
        assert process.poll() is None, (tmp_path / "first.log").read_text(encoding="utf-8")
        os.killpg(process.pid, signal.SIGSTOP)
        pulled = store.digests("model") + store.digests("packed_model")
        if len(pulled) < 3 or not models:
            models.update(folder.glob("attempts/*/model.safetensors"))
        if merged_bytes(folder, models) >= 1_000_000 and store.digests("merge_plan"):
            return True
        os.killpg(process.pid, signal.SIGCONT)
        return False

    try:
        wait_until(merging, "the merge begins", pause=0.005)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert merged_bytes(folder, models) > 0
    assert store.digests("checkpoint") == []
    assert store.refs("task_arithmetic/merged_checkpoint") == {}

    again = start(environment, tmp_path / "second.log")
    try:
        status = again.wait(HANG_SECONDS)
    finally:
        again.kill()
        again.wait()
    assert status == 0, (tmp_path / "second.log").read_text(encoding="utf-8")
    text = (tmp_path / "second.log").read_text(encoding="utf-8")
    assert len(store.digests("checkpoint")) == 4
    assert "merged checkpoints: 4 made, 0 up to date" in text
    for ref in store.refs("task_arithmetic/merged_checkpoint").values():
        assert store.verify(store.get(ref.kind, ref.digest)) == []
