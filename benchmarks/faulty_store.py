"""Merges on SeaweedFS behind a proxy that breaks requests: are all digests right, and how soon?

    python -m benchmarks.faulty_store --merges 50 --share 0.05 --json results.json

Each of six kinds of fault (tests/servers/faulty_proxy.py) meets 5 % of all requests. Every merge is
another one (its own weight, so its own plan) in a process's fresh connection to the store; its
contents are compared with the same merge in a local store, and verified once more without the
proxy. Exits with 1 when a digest is wrong or a merge fails.
"""

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

import resources.places.s3.bucket as s3_bucket
from benchmarks.rigs.contest import markdown, save, say
from resources.errors import ResourceError
from resources.places.s3.client import Timeouts
from resources.store.artifact_store import ArtifactStore
from tests.merges.store_merges import merge_family, pull_family
from tests.models import checkpoint_factory as factory
from tests.servers.faulty_proxy import KINDS, running_proxy
from tests.servers.storage_servers import BUCKET, running_seaweedfs

SHAPE = replace(factory.LLAMA, hidden=128, vocabulary=19_000, dtype=torch.bfloat16)  # 10 MB
METHODS = ("linear", "task_arithmetic", "ties", "slerp", "dare_ties")


def parameters(number: int) -> tuple[str, str]:
    """The method and the parameters of one merge, no two alike."""
    method, share = METHODS[number % len(METHODS)], 0.3 + 0.01 * number
    if method == "slerp":
        return method, f"t: {share / 2:.3f}"
    extra = ", density: 0.6" if method in ("ties", "dare_ties") else ""
    return method, f"weight: {share:.2f}{extra}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--merges", type=int, default=50)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--read-timeout", type=float, default=0.5, help="seconds")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    hasty = Timeouts(connect=5.0, read=arguments.read_timeout, slowest=8 << 20)
    s3_bucket.FIRST_TIMEOUTS = hasty
    with tempfile.TemporaryDirectory(prefix="ronghe-bench-") as folder:
        sys.exit(faulty(Path(folder), hasty, arguments))


def faulty(work: Path, hasty: Timeouts, arguments: argparse.Namespace) -> int:
    """All merges; the exit status."""
    family = factory.write_family(work / "models", SHAPE)
    local = ArtifactStore.open((work / "local").as_uri())
    experts = pull_family(local, family)
    wanted = [
        merge_family(local, experts, *parameters(number)).artifact.content_digest
        for number in range(arguments.merges)
    ]
    root, seconds, wrong = f"s3://{BUCKET}/faulty", list[float](), list[str]()
    with running_seaweedfs(work / "weed") as server:
        os.environ.update(server.environment())
        silence = 2 * arguments.read_timeout
        with running_proxy(
            server.endpoint, arguments.share, arguments.seed, (silence, silence / 20)
        ) as proxy:
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
            pull_family(hurried(root, hasty), family)
            for number, digest in enumerate(wanted):
                started = time.perf_counter()
                try:
                    made = merge_family(hurried(root, hasty), experts, *parameters(number))
                    if made.artifact.content_digest != digest or made.memoized:
                        wrong.append(f"merge {number} has other contents")
                except ResourceError as error:
                    wrong.append(f"merge {number}: {error}")
                seconds.append(time.perf_counter() - started)
                say(f"  {number + 1}: {seconds[-1]:.1f} s, {sum(proxy.seen.values())} faults")
        os.environ["AWS_ENDPOINT_URL"] = server.endpoint
        clean = ArtifactStore.open(root)
        there = [clean.get("checkpoint", digest) for digest in clean.digests("checkpoint")]
        for artifact in there:
            wrong += clean.verify(artifact)
    rows = [[kind, *(str(proxy.seen[kind, way]) for way in ("read", "write"))] for kind in KINDS]
    print("\n" + markdown(["fault", "reads", "writes"], rows) + "\n")
    print(f"{proxy.requests} requests, {sum(proxy.seen.values())} faults")
    print(
        f"{arguments.merges - len(wrong)} of {arguments.merges} merges right, {len(there)} "
        f"checkpoints visible; a merge took {median(seconds):.1f} s (median), at most "
        f"{max(seconds):.1f} s"
    )
    for each in wrong:
        print(each)
    faults = {f"{kind}/{way}": count for (kind, way), count in proxy.seen.items()}
    save(arguments.json, {"wrong": wrong, "seconds": seconds, "faults": faults,
                          "requests": proxy.requests, "merges": arguments.merges})  # fmt: skip
    return 1 if wrong or len(there) != arguments.merges else 0


def hurried(root: str, timeouts: Timeouts) -> ArtifactStore:
    """A store that gives up on a silent server soon, so that 50 merges do not take an hour."""
    store = ArtifactStore.open(root)
    store.place.bucket.timeouts = timeouts  # type: ignore[attr-defined]
    return store


if __name__ == "__main__":
    main()
