"""Kill merges at random moments, again and again, and look at what the store holds then.

    python -m benchmarks.crash --kills 300 --store both --json crash.json

A merge is a process that calls the assets' merging function on a store with three small models (the
weights are 10 MB, so that on S3 they go up in parts). It is killed by SIGKILL at a moment that is
uniform over the life of such a process, publishing included, and every second one at a moment that
is uniform from its first write on: most of so short a life is reading. After each kill:

- whatever is visible newly is hashed, and some of what was there before; nothing may be missing,
- the same merge is run to its end: its contents must be those of a merge that nobody killed, and
  its names must point to them. It goes on from what the killed one left.

Every 25 kills gc removes what it may, with no grace; at the end it does so once more and
everything visible is hashed. A fault raises AssertionError with all that is known of it.
"""

import argparse
import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from statistics import mean, median

from assets.work.merging.merging import CHECKPOINT
from resources.store.artifact_store import ArtifactStore
from tests.merges.merge_processes import (
    ASSET,
    MergeProcess,
    aws_environment,
    finish,
    publish_models,
    start,
)
from tests.models import checkpoint_factory as factory
from tests.servers.storage_servers import BUCKET, running_seaweedfs

SHAPE = factory.Shape("qwen2", layers=2, hidden=128, intermediate=3200, tied=True)
PHASES = ("before writing", "writing", "publishing", "published", "done")
GC_EVERY, LOOK_BACK, BATCH = 25, 2, 25
UNHURT = 900  # the number of a round that is not killed
RECIPE = """
merge_method: task_arithmetic
experts: all-pairs
base_model: base
parameters: {{weight: 1.0}}
sweep: {{lambda: {values}}}
"""
Say = Callable[[str], None]


@dataclass
class Summary:
    """What the kills did: how many came in which phase, and what the runs after them copied."""

    store: str
    kills: int = 0
    survived: int = 0
    life: float = 0.0
    phases: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    resumed: dict[str, list[float]] = field(default_factory=dict)
    visible: int = 0
    collected: int = 0
    seconds: float = 0.0

    def table(self) -> str:
        """The summary for people."""
        lines = [
            f"{self.store}: {self.kills} kills in {self.seconds:.0f} s, a merge lives "
            f"{self.life:.2f} s, {self.survived} were over before; all {self.visible} artifacts "
            f"whole, gc took {self.collected} attempts",
            "",
            "| killed while | kills | tensors copied by the next run |",
            "|---|---:|---:|",
        ]
        for phase in PHASES:
            shares = self.resumed.get(phase)
            share = f"{mean(shares):.0%}" if shares else "–"
            lines.append(f"| {phase} | {self.phases[phase]} | {share} |")
        return "\n".join(lines)


def values_of(number: int) -> list[float]:
    """The lambdas of one round: every third is a sweep of two."""
    first = (number + 1) / 1000
    return [first, first + 0.5] if number % 3 == 2 else [first]


def job(store: str, values: Sequence[float], report: Path) -> MergeProcess:
    """The merge of these lambdas."""
    points = tuple(f"lambda={value}" for value in values)
    recipe = RECIPE.format(values=json.dumps(list(values)))
    return MergeProcess(store, recipe, points, report, environment=aws_environment())


class Crashes:
    """One store, and merges into it that are killed."""

    def __init__(self, store: str, family: factory.Family, work: Path, seed: int) -> None:
        self.store = ArtifactStore.open(store, cache=work / "cache")
        self.summary = Summary(store.split(":")[0])
        self._family = family
        self._work = work
        self._chance = random.Random(seed)
        self._known: set[str] = set()
        self._contents: dict[str, str] = {}
        self._lives: list[float] = []
        self._writes: list[float] = []
        self._batch = BATCH
        publish_models(store, family)

    def run(self, kills: int, say: Say, seconds: float = float("inf")) -> Summary:
        """Kill so many merges, or as many as there is time for."""
        began, number = time.monotonic(), 0
        self._batch = min(BATCH, kills)
        self._whole(values_of(UNHURT), self._expected(UNHURT))  # to see how long one lives
        while self.summary.kills < kills and time.monotonic() - began < seconds:
            contents = self._expected(number)
            if self._killed(number, contents):
                self.summary.kills += 1
                if self.summary.kills % GC_EVERY == 0:
                    self.summary.collected += self._gc()
                    say(f"{self.summary.store}: {self.summary.kills} kills, all is well")
            else:
                self.summary.survived += 1
            number += 1
        self.summary.collected += self._gc()
        self._check(self.store.digests(CHECKPOINT))
        self.summary.visible = len(self._known)
        self.summary.life = median(self._lives)
        self.summary.seconds = time.monotonic() - began
        return self.summary

    def _killed(self, number: int, contents: Mapping[str, str]) -> bool:
        """Kill one merge and look; then run it to its end. False when it was over before."""
        values = values_of(number)
        span = self._lives
        process, attempts = self._started(
            job(self.store.uri, values, self._work / f"{number}.json")
        )
        if number % 2:
            span = self._writes
            self._wait_for_write(process, attempts)
        time.sleep(self._chance.uniform(0.0, median(span[-9:])))
        process.kill()
        if finish([process]) == [0]:
            self._whole(values, contents)
            return False
        phase = self._phase(process.pid or 0, contents)
        self.summary.phases[phase] += 1
        visible = set(self.store.digests(CHECKPOINT))
        assert self._known <= visible, ("lost", number, sorted(self._known - visible))
        older = sorted(self._known)
        some = self._chance.sample(older, min(LOOK_BACK, len(older)))
        self._check([*(visible - self._known), *some])
        report = self._whole(values, contents)
        if phase in ("writing", "publishing"):
            self.summary.resumed.setdefault(phase, []).append(report["resumed"] / report["tensors"])
        return True

    def _whole(self, values: Sequence[float], contents: Mapping[str, str]) -> dict:
        """Run a merge to its end; contents and names must be right."""
        whole = job(self.store.uri, values, self._work / "whole.json")
        whole.report.unlink(missing_ok=True)
        began = time.monotonic()
        process, attempts = self._started(whole)
        wrote = self._wait_for_write(process, attempts)
        codes = finish([process])
        self._lives.append(time.monotonic() - began)
        if wrote is not None:
            self._writes.append(time.monotonic() - wrote)
        report: dict = whole.result() or {}
        assert codes == [0], ("the merge after the kill failed", values, codes)
        assert report["contents"] == contents, ("other contents", values, report, contents)
        for point, digest in report["digests"].items():
            found = self.store.resolve(ASSET, point)
            assert found is not None, ("no name", point)
            assert found.digest == digest, ("another artifact", point, found.digest, digest)
        self._check(list(report["digests"].values()))
        return report

    def _started(self, merge: MergeProcess) -> tuple[ForkServerProcess, set[str]]:
        """A merge that was started, and the attempts that were there before."""
        attempts = self._attempts()
        return start(merge), attempts

    def _attempts(self) -> set[str]:
        return {entry.key for entry in self.store.place.children("attempts")}

    def _wait_for_write(self, process: ForkServerProcess, before: set[str]) -> float | None:
        """Wait until a process has begun to write; None where it ends without."""
        while process.is_alive():
            if self._attempts() - before:
                return time.monotonic()
            time.sleep(0.002)
        return None

    def _check(self, digests: Sequence[str]) -> None:
        """Hash artifacts."""
        for digest in digests:
            faults = self.store.verify(self.store.get(CHECKPOINT, digest))
            assert faults == [], ("broken", digest, faults)
        self._known |= set(digests)

    def _phase(self, pid: int, contents: Mapping[str, str]) -> str:
        """Where the killed process was, by what it left."""
        place = self.store.place
        if all(self.store.ref(ASSET, point) for point in contents):
            return "done"
        there = {entry.key for entry in place.children("attempts")}
        own = []
        for key in sorted(key for key in there if key.endswith(".json")):
            found = place.read(key)
            if found is not None and json.loads(found[0])["pid"] == pid:
                own.append(key.removesuffix(".json"))
        if set(self.store.digests(CHECKPOINT)) - self._known:
            return "published"
        if any(f"{key}.claim" in there for key in own):
            return "publishing"
        return "writing" if own else "before writing"

    def _gc(self) -> int:
        """Remove what may be removed; what stays is published, or claimed a moment ago."""
        report = self.store.gc(grace_seconds=0)
        published = {
            self.store.get(kind, digest).manifest["attempt"]
            for kind in self.store.kinds()
            for digest in self.store.digests(kind)
        }
        entries = self.store.place.walk("attempts")
        there = {entry.key.split("/")[1].split(".")[0] for entry in entries}
        claimed = {entry.key.split("/")[1][:32] for entry in entries if ".claim" in entry.key}
        assert published <= there, ("gc took what was published", sorted(published - there))
        assert there - published <= claimed, ("gc left", sorted(there - published - claimed))
        pending = {entry.key.split("/")[1] for entry in self.store.place.pending("attempts")}
        assert pending <= claimed, ("gc left uploads", sorted(pending - claimed))
        return len(report.garbage)

    def _expected(self, number: int) -> dict[str, str]:
        """The contents that a round must have, from merges that nobody kills."""
        points = [f"lambda={value}" for value in values_of(number)]
        if points[0] not in self._contents:
            batch = range(number, number + (self._batch if number < UNHURT else 1))
            values = [value for each in batch for value in values_of(each)]
            with tempfile.TemporaryDirectory(dir=self._work) as folder:
                uri = (Path(folder) / "store").as_uri()
                publish_models(uri, self._family)
                clean = job(uri, values, Path(folder) / "clean.json")
                assert finish([start(clean)]) == [0], "the clean merge failed"
                self._contents |= (clean.result() or {})["contents"]  # type: ignore[operator]
        return {point: self._contents[point] for point in points}


@contextlib.contextmanager
def store_on(name: str, work: Path) -> Iterator[str]:
    """The root of a fresh store, local or on a SeaweedFS of its own."""
    if name == "local":
        yield (work / "store").as_uri()
        return
    with running_seaweedfs(work / "seaweedfs") as server:
        before = dict(os.environ)
        os.environ.update(server.environment())
        try:
            yield f"s3://{BUCKET}/crash"
        finally:
            os.environ.clear()
            os.environ.update(before)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--store", choices=("local", "seaweedfs", "both"), default="both")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="At most so many.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="Where the stores are made.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = ("local", "seaweedfs") if arguments.store == "both" else (arguments.store,)
    found: list[dict] = []
    for name in names:
        if arguments.work is not None:
            arguments.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            work = Path(folder)
            family = factory.write_family(work / "models", SHAPE)
            with store_on(name, work) as uri:
                crashes = Crashes(uri, family, work, arguments.seed)
                seconds = 60 * arguments.minutes
                summary = crashes.run(arguments.kills, lambda s: print(s, flush=True), seconds)
        print(f"\n{summary.table()}\n", flush=True)
        found.append(asdict(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
