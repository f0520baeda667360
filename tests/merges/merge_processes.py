"""Merges into a store by forked processes, which start in milliseconds and may be killed."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import merge_ops.jobs.assembly
import merge_ops.plans.reuse
import merge_ops.stream.stream  # noqa: F401
import resources.places.local
import resources.places.s3.place  # noqa: F401
from assets.work.merging.merging import CHECKPOINT, MergeJob, merge_set
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.settings import StreamSettings
from resources.store.artifact_store import ArtifactStore
from tests.forks import FORKS
from tests.models import checkpoint_factory as factory
from tests.servers.waiting import HANG_SECONDS

MIB = 1 << 20
ASSET = "crash/merged_checkpoint"


@dataclass(frozen=True)
class MergeProcess:
    """One call of `merge_set` over all experts of `publish_models`, and what becomes of it.

    `report` is written when it is done. With `die_at` the process kills itself when that share of
    the bytes is written, and what could reach the store has reached it, as in a merge of a larger
    model by far the most has.
    """

    store: str
    recipe: str
    coefficients: tuple[str, ...]
    report: Path
    experts: str = "e1+e2"
    die_at: float | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def result(self) -> dict[str, object] | None:
        """What the process reported; None when it did not come so far."""
        if not self.report.exists():
            return None
        return json.loads(self.report.read_text())


def publish_models(uri: str, family: factory.Family) -> None:
    """A base model and its experts, in the store."""
    store = ArtifactStore.open(uri)
    for number, path in enumerate((family.base, *family.experts)):
        name = f"e{number}" if number else "base"
        pull_model(store, UpstreamModel(name=name, source=path.as_uri()), path.parent)


def aws_environment() -> dict[str, str]:
    """The AWS variables of this process; the server of forks may have started with others."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def start(job: MergeProcess, together: Barrier | None = None) -> ForkServerProcess:
    """Start the merge; with a barrier, after all others of it are ready."""
    process = FORKS.Process(target=run, args=(job, together))
    process.start()
    return process


def run(job: MergeProcess, together: Barrier | None = None) -> None:
    """What the process does."""
    os.environ.update(job.environment)
    store = ArtifactStore.open(job.store)
    recipe = parse_recipe(job.recipe, "crash", "crash.yaml")

    def progress(done: int, total: int) -> None:
        if job.die_at is not None and done >= job.die_at * total:
            while not arrived(store, done / total, len(job.coefficients)):
                time.sleep(0.02)
            job.report.with_suffix(".killed").write_text(json.dumps(done / total))
            os.kill(os.getpid(), signal.SIGKILL)

    if together is not None:
        together.wait()
    merged = merge_set(
        store,
        MergeJob(Steps((recipe,)), "base", job.experts, dict.fromkeys(job.coefficients)),
        StreamSettings(threads=1, device="cpu"),
        progress,
    )
    for point in merged.checkpoints:
        store.point(
            ASSET, point.coefficient, CHECKPOINT, point.artifact.digest, run=str(os.getpid())
        )
    found = {
        "resumed": merged.resumed,
        "tensors": merged.tensors,
        "memoized": sum(point.memoized for point in merged.checkpoints),
        "digests": {each.coefficient: each.artifact.digest for each in merged.checkpoints},
        "contents": {e.coefficient: e.artifact.content_digest for e in merged.checkpoints},
        "attempts": {e.coefficient: e.artifact.manifest["attempt"] for e in merged.checkpoints},
    }
    temporary = job.report.with_suffix(".part")
    temporary.write_text(json.dumps(found))
    temporary.rename(job.report)


def arrived(store: ArtifactStore, share: float, outputs: int) -> bool:
    """Whether so much of all weights that this process writes is in the store and journaled."""
    place, good = store.place, 0
    keys = [each.key for each in place.children("attempts") if each.key.endswith(".json")]
    pending = {each.key: each.size for each in place.pending("attempts")}
    for key in keys:
        found = place.read(key)
        note = json.loads(found[0]) if found else {}
        weights = note.get("files", {}).get("model.safetensors")
        if note.get("pid") == os.getpid() and weights and weights["marks"]:
            written = share * weights["size"]
            sent = pending.get(key.removesuffix(".json") + "/model.safetensors", written)
            good += weights["marks"][-1][0] > written - 4 * MIB and sent > written - 9 * MIB
    return good == outputs


def finish(
    processes: Sequence[ForkServerProcess], seconds: float = HANG_SECONDS
) -> list[int | None]:
    """Wait for processes; their exit codes."""
    for process in processes:
        process.join(seconds)
    return [process.exitcode for process in processes]
