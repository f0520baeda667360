"""Records `recorded.tar.xz`: a project of the release before asset keys began with their recipe.

It ran once, with the code of commit 42f52bf, and is kept to show what the recording holds:

    git worktree add /tmp/earlier 42f52bf && cd /tmp/earlier
    PYTHONPATH=. python RECORD.PY /tmp/recorded.tar.xz

Models, catalog, store and Dagster's instance are below one folder. Each recipe is merged and scored
by a refresh. The champion of `sums` is then named by hand, twice: random models pass no gate.
"""

import os
import shutil
import socket
import sys
import tarfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
socket.gethostname = lambda: "recorder"

from orchestration.refresh import open_instance, refresh  # noqa: E402, I001 (names of an earlier commit)
from resources.artifact_store import ArtifactStore  # noqa: E402

from tests import checkpoint_factory as factory  # noqa: E402
from tests.orchestration.tiny_project import make_project  # noqa: E402

ROOT = Path("/tmp/ronghe-recorded")
SHAPE = factory.Shape("qwen2", layers=1, hidden=16, intermediate=16, heads=2, kv_heads=1, tied=True)
SUMS = """
merge_method: task_arithmetic
base_model: base
experts: all
parameters: {weight: 1.0}
sweep: {lambda: [0.5, 1.0]}
suite: colours
gate: {minimum_samples: 1}
"""
MIX = """
name: warm
merge_method: task_arithmetic
base_model: base
models: [{model: e1}]
parameters: {weight: 0.5}
---
merge_method: linear
experts: all
models: [{model: warm}]
parameters: {weight: 1.0}
"""
MASKED = """
merge_method: emr
base_model: base
experts: all
"""


def record(archive: Path) -> None:
    """Make the project, refresh it twice, name its champions, and pack it."""
    shutil.rmtree(ROOT, ignore_errors=True)
    project = make_project(ROOT, {}, experts=2, shape=SHAPE)
    for name, text in (("sums", SUMS), ("mix", MIX), ("masked", MASKED)):
        (project.catalog / "recipes" / f"{name}.yaml").write_text(text, encoding="utf-8")
    for expected in (True, False):
        with open_instance(project.settings()) as instance:
            report = refresh(instance, project.settings())
        assert not report.failures, report.failures
        assert bool(report.rerun) is expected
    store = ArtifactStore.open(project.store)
    for value in (0.5, 1.0):
        merged = store.ref("merged_checkpoint/sums", f"lambda={value}|e1+e2")
        assert merged is not None
        fields = {"experts": "e1+e2", "coefficient": f"lambda={value}", "reasons": ["by hand"]}
        store.point("champion/sums", None, "checkpoint", merged.digest, run=f"{value}", **fields)
    shutil.rmtree(project.root / "dagster" / "logs", ignore_errors=True)
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        packed.add(ROOT, arcname=".", filter=anonymous)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's files."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    record(Path(sys.argv[1]))
