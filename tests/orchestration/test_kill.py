"""kill -9 in the middle of a merge: nothing half-made is visible, and the next run finishes."""

import os
import signal
from pathlib import Path

from orchestration.refreshing.instance import open_instance
from orchestration.refreshing.refresh import refresh
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.forked_programs import begin_program
from tests.orchestration.projects.tiny_project import TASK_ARITHMETIC, make_project
from tests.servers.waiting import wait_until

SHAPE = factory.Shape("qwen2", layers=2, hidden=128, intermediate=12288, tied=True)  # 38 MB
UNSCORED = {key: value for key, value in TASK_ARITHMETIC.items() if key != "suite"}
RECIPE = {**UNSCORED, "sweep": {"lambda": [0.25, 0.5, 0.75, 1.0]}}
REFRESH = """
import time
from merge_ops.stream import stream
plain = stream.BlockStream._merge_block
def slow(self, *arguments):
    time.sleep(0.1)  # or the merge might be over between two looks, on a busy machine
    return plain(self, *arguments)
stream.BlockStream._merge_block = slow
from orchestration.commands.refresh_command import refresh
refresh()
"""


def merged_bytes(store: Path, since: set[Path]) -> int:
    """Bytes of weights in attempts that began after `since` was listed."""
    files = set(store.glob("attempts/*/model.safetensors")) - since
    return sum(file.stat().st_size for file in files if file.exists())


def test_a_killed_merge_leaves_nothing_visible_and_the_next_run_finishes(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"task_arithmetic": RECIPE}, experts=2, shape=SHAPE)
    environment = {**project.environment, "HOME": os.environ["HOME"]}
    folder, store = tmp_path / "store", ArtifactStore.open(project.store)
    log = tmp_path / "refresh.log"
    with log.open("wb") as printed:
        process = begin_program(REFRESH, tmp_path, printed=printed, environment=environment)
    models: set[Path] = set()

    def merging() -> bool:
        """Whether the merge has begun; the process stands still while we look, or it might end."""
        assert process.poll() is None, log.read_text(encoding="utf-8")
        os.kill(process.pid, signal.SIGSTOP)
        pulled = store.digests("model") + store.digests("packed_model")
        if len(pulled) < 3 or not models:
            models.update(folder.glob("attempts/*/model.safetensors"))
        if merged_bytes(folder, models) >= 1_000_000 and store.digests("merge_plan"):
            return True
        os.kill(process.pid, signal.SIGCONT)
        return False

    try:
        wait_until(merging, "the merge begins", pause=0.05)
    finally:
        process.kill()
        process.communicate()
    assert merged_bytes(folder, models) > 0
    assert store.digests("checkpoint") == []
    assert store.refs("task_arithmetic/merged_checkpoint") == {}

    with open_instance(project.settings()) as instance:
        report = refresh(instance, project.settings())
    assert report.failures == []
    assert len(report.counts["task_arithmetic/merged_checkpoint"].rerun) == 4
    assert len(store.digests("checkpoint")) == 4
    for ref in store.refs("task_arithmetic/merged_checkpoint").values():
        assert store.verify(store.get(ref.kind, ref.digest)) == []
