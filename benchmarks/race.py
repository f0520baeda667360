"""Processes that publish the same plan at once, round after round.

    python -m benchmarks.race --processes 8 --rounds 50 --store both --json race.json

In every round all processes merge the same recipe into one store, from a barrier on: all must
succeed with the same artifact, and nothing else may be left. In a second row of rounds half of them
write other contents under the same digest: one content must win, and the other half be refused.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from assets.work.merging.merging import CHECKPOINT
from benchmarks.crash import job, store_on
from resources.errors import ContentConflictError
from resources.store.artifact_store import ArtifactStore
from tests.forks import FORKS
from tests.merges.merge_processes import finish, publish_models, run
from tests.models import checkpoint_factory as factory

SHAPE = factory.Shape("qwen2", layers=1, hidden=32, intermediate=48, tied=True)
PATIENCE = 120.0  # seconds; a racer that died must not leave the others waiting


def racer(
    store: str, number: int, rounds: int, together: Barrier, work: Path, environment: dict[str, str]
) -> None:
    """What one process does: the merges, then the quarrels."""
    os.environ.update(environment)
    for each in range(rounds):
        together.wait(PATIENCE)
        run(job(store, [(each + 1) / 1000], work / f"{each}-{number}.json"))
    opened = ArtifactStore.open(store)
    for each in range(rounds):
        with opened.attempt("scores") as attempt:
            attempt.write_json("scores.json", {"round": each, "content": number % 2})
            together.wait(PATIENCE)
            try:
                won = attempt.publish(f"quarrel-{each:04}").read_json("scores.json")["content"]
            except ContentConflictError:
                won = None
        (work / f"quarrel-{each}-{number}.json").write_text(json.dumps(won))


def race(store: str, processes: int, rounds: int, work: Path) -> dict[str, Any]:
    """Run the rounds on one store and check each; AssertionError says what was wrong."""
    publish_models(store, factory.write_family(work / "models", SHAPE))
    together = FORKS.Barrier(processes)
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    began = time.monotonic()
    racers = [
        FORKS.Process(target=racer, args=(store, number, rounds, together, work, environment))
        for number in range(processes)
    ]
    for each in racers:
        each.start()
    assert finish(racers, 60.0 + 20.0 * rounds) == [0] * processes, "a racer failed"
    seconds = time.monotonic() - began
    opened = ArtifactStore.open(store)
    made = [check_merges(opened, processes, work, each) for each in range(rounds)]
    winners = Counter(check_quarrel(opened, processes, work, each) for each in range(rounds))
    assert len(opened.digests(CHECKPOINT)) == rounds, "more artifacts than plans"
    check_nothing_left(opened)
    return {
        "store": store.split(":")[0],
        "processes": processes,
        "rounds": rounds,
        "seconds": seconds,
        "merges published at once": sum(made),
        "merges found there": rounds * processes - sum(made),
        "quarrels won by": {str(name): count for name, count in sorted(winners.items())},
    }


def check_merges(store: ArtifactStore, processes: int, work: Path, number: int) -> int:
    """All racers of a round have the one artifact, and it is whole; how many had merged it."""
    reports = [
        json.loads((work / f"{number}-{each}.json").read_text()) for each in range(processes)
    ]
    for what in ("digests", "contents", "attempts"):
        assert all(each[what] == reports[0][what] for each in reports), (what, reports)
    (digest,) = reports[0]["digests"].values()
    assert store.verify(store.get(CHECKPOINT, digest)) == [], ("broken", digest)
    return sum(not each["memoized"] for each in reports)


def check_quarrel(store: ArtifactStore, processes: int, work: Path, number: int) -> int:
    """The content that is there is what every winner saw; all others were refused."""
    artifact = store.get("scores", f"quarrel-{number:04}")
    content = artifact.read_json("scores.json")["content"]
    said = [
        json.loads((work / f"quarrel-{number}-{each}.json").read_text())
        for each in range(processes)
    ]
    wanted = [content if each % 2 == content else None for each in range(processes)]
    assert said == wanted, ("two contents under one digest", number, said)
    return content


def check_nothing_left(store: ArtifactStore) -> None:
    """No attempt but the published ones."""
    published = {
        store.get(kind, digest).manifest["attempt"]
        for kind in store.kinds()
        for digest in store.digests(kind)
    }
    there = {entry.key.split("/")[1] for entry in store.place.walk("attempts")}
    assert there == published, ("left over", sorted(there ^ published))
    assert store.place.pending("attempts") == []


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = (f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--store", choices=("local", "seaweedfs", "both"), default="both")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    names = ("local", "seaweedfs") if arguments.store == "both" else (arguments.store,)
    rows: list[dict[str, Any]] = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder, store_on(name, Path(folder)) as uri:
            rows.append(race(uri, arguments.processes, arguments.rounds, Path(folder)))
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
