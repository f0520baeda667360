"""Single bits flipped in what merges and scoring read: is each one noticed before it does harm?

    python -m benchmarks.bit_flips --flips 200 --seed 1

Each flip changes one bit at a random place of one thing, does what reads it, and puts it back:

- `base`, `expert`: a folder of a user's, merged by `ronghe merge`, with a memory of hashes that
  says that its stamps are what they were, as when a disk rots;
- `stored base`, `stored expert`, `packed expert`: models in an artifact store, merged there;
- `checkpoint`: a published one, merged on by the next step of a recipe, and handed out for scoring;
- `cache`: a folder that a packed expert was restored into, or an artifact was pulled into.

Stores are a local folder and a bucket of SeaweedFS. A flip is `refused` where an error ends the
work and nothing is published, `harmless` where the result is byte for byte that of the right bytes:
what was flipped was not read, or was made anew. Anything else is a miss; the exit status is 1.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from blake3 import blake3

from assets.work.merging.merging import CHECKPOINT, MergeJob, merge_set
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.packed_models import PACKED, stored_model
from assets.work.upstream.pulling import pull_model
from benchmarks.rigs.contest import markdown, say
from benchmarks.rigs.flips import (
    HARMLESS,
    MISSED,
    REFUSED,
    Case,
    Flip,
    digest_of,
    run_cases,
    sizes_of,
)
from merge_ops.recipes import load_steps
from merge_ops.stream import StreamSettings
from orchestration.commands.merging.merge_command import MergeOptions, run_merge
from resources.reading.digest_tree import TREE
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from resources.store.names import ATTEMPTS, manifest_key
from tests.models import checkpoint_factory as factory
from tests.models.checkpoint_factory import Family

STEPS = """
name: halfway
merge_method: linear
models:
  - {model: expert-1, parameters: {weight: 0.5}}
  - {model: expert-2, parameters: {weight: 0.5}}
---
merge_method: ties
base_model: base
models:
  - {model: halfway, parameters: {weight: 1.0, density: 0.5}}
  - {model: expert-1, parameters: {weight: 0.5, density: 0.5}}
"""
MERGE = """
merge_method: ties
base_model: base
models:
  - {model: expert-1, parameters: {weight: 0.5, density: 0.5}}
  - {model: expert-2, parameters: {weight: 0.5, density: 0.5}}
"""
SETTINGS = StreamSettings(threads=2, device="cpu")
# ------------------------------------------------------------------------ folders of a user's


def folder_cases(work: Path, family: Family) -> list[Case]:
    """`ronghe merge` of folders, whose hashes are remembered below `work`."""
    os.environ["HOME"] = str(work / "home")
    config = work / "merge.yaml"
    text = MERGE
    for folder in (family.base, *family.experts):
        text = text.replace(f": {folder.name}", f": {folder}")
    config.write_text(text)
    options = MergeOptions("2", "cpu", "256MiB", "5GB", verify=False)

    def use() -> str:
        out = work / "merged"
        shutil.rmtree(out, ignore_errors=True)
        try:
            run_merge(config, out, options)
        except BaseException:
            assert not out.exists(), "something was published"
            raise
        return digest_of(out)

    settle(work / "home")
    return [
        Case(name, lambda at=folder: sizes_of(at), rotten(work / "home", folder), use)
        for name, folder in (("base", family.base), ("expert", family.experts[0]))
    ]


def rotten(home: Path, folder: Path) -> "Callable[[Flip], Iterator[None]]":
    """What flips a bit of a folder's file below equal stamps: the memory is told the new ones."""

    def flipped(flip: Flip) -> Iterator[None]:
        path = folder / flip.path
        data = path.read_bytes()
        path.write_bytes(flip.of(data))
        settle(home, path)
        try:
            yield
        finally:
            path.write_bytes(data)
            settle(home, path)

    return flipped


def settle(home: Path, *files: Path) -> None:
    """Have hashes of an hour ago remembered, and these files' stamps as they are now."""
    for memory in (home / ".cache" / "ronghe" / "revisions").glob("*.json"):
        rows = json.loads(memory.read_bytes().split(b"\n", 1)[1])
        for name, row in rows.items():
            row[0] = time.time_ns() + 3600 * 10**9
            for file in files:
                found = file.stat()
                if row[1][0][3] == found.st_ino and file.as_posix().endswith(name):
                    times = found.st_mtime_ns, found.st_ctime_ns
                    row[1][0] = [found.st_size, *times, found.st_ino, found.st_dev]
        text = json.dumps(rows).encode()
        first = {"format": 2, "blake3": blake3(text).hexdigest()}
        memory.write_bytes(json.dumps(first).encode() + b"\n" + text)


# ---------------------------------------------------------------------------------- stores


def store_cases(store: ArtifactStore, family: Family, label: str, work: Path) -> list[Case]:
    """Merges and folders for scoring of a store that is filled here."""
    below = UpstreamModel("base", str(family.base))
    pull_model(store, below, work)
    for folder, kept in zip(family.experts, ("full", "packed"), strict=True):
        pull_model(
            store, UpstreamModel(folder.name, str(folder), "base", store=kept), work, base=below
        )
    models = {name: store.resolve("model", name) for name in ("base", "expert-1", "expert-2")}
    base, expert, packed = (found for found in models.values() if found is not None)
    assert packed.kind == PACKED
    merge, chain = (merging(store, work, text) for text in (MERGE, STEPS))
    result = chain()
    halfway = next(each for each in checkpoints(store) if each.content_digest != result)

    def score() -> str:
        """What scoring is handed: the folder of a checkpoint and of a restored expert."""
        restored = stored_model(store, "expert-2")
        assert restored is not None
        fresh = store.get(CHECKPOINT, halfway.digest)
        return digest_of(fresh.folder()) + digest_of(restored.folder())

    def merge_on() -> str:
        return chain() + score()

    things = {
        "stored base": (base, merge), "stored expert": (expert, merge),
        "packed expert": (packed, merge), "checkpoint": (halfway, merge_on),
    }  # fmt: skip
    cases = [
        Case(f"{name}, {label}", sizes_in(store, each), spoiled(store), use)
        for name, (each, use) in things.items()
    ]
    cached = store.cache.root / "folders"
    cases.append(Case(f"cache, {label}", lambda: sizes_of(cached), in_cache(cached), score))
    return cases


def merging(store: ArtifactStore, work: Path, text: str) -> Callable[[], str]:
    """What merges a recipe anew and returns the digest of the result's content."""
    file = work / f"{blake3(text.encode()).hexdigest()[:8]}.yaml"
    file.write_text(text)
    steps = load_steps(file)
    job = MergeJob(steps, "base", "", {"default": None})

    results: set[str] = set()

    def merge() -> str:
        store.place.delete(manifest_key(CHECKPOINT, digest) for digest in results)
        before = {each.digest for each in checkpoints(store)}
        try:
            made = merge_set(store, job, SETTINGS).checkpoints[0].artifact
        except BaseException:
            left = {each.digest for each in checkpoints(store)} - before
            assert not left, "something was published"
            raise
        results.add(made.digest)
        return made.content_digest

    return merge


def checkpoints(store: ArtifactStore) -> list[Artifact]:
    """All published checkpoints."""
    keys = [entry.key for entry in store.place.walk(f"artifacts/{CHECKPOINT}")]
    return [store.get(CHECKPOINT, key.split("/")[2]) for key in keys]


def sizes_in(store: ArtifactStore, artifact: Artifact) -> Callable[[], dict[str, int]]:
    """The keys of an artifact's files, and of the digests of their pieces, with their bytes."""
    keys = {artifact.key(file.path): file.size for file in artifact.files.values() if file.size}
    tree = f"{ATTEMPTS}/{artifact.manifest['attempt']}/{TREE}"
    stored = store.place.read(tree)
    if stored is not None:
        keys[tree] = len(stored[0])
    return lambda: keys


def spoiled(store: ArtifactStore) -> "Callable[[Flip], Iterator[None]]":
    """What flips a bit of an object, or of a file, of a store."""

    def flipped(flip: Flip) -> Iterator[None]:
        stored = store.place.read(flip.path)
        assert stored is not None
        write(store, flip.path, flip.of(stored[0]))
        try:
            yield
        finally:
            write(store, flip.path, stored[0])

    return flipped


def write(store: ArtifactStore, key: str, data: bytes) -> None:
    """Put bytes where published ones lie, which a local store keeps from being written."""
    folder = store.place.folder("")
    if folder is not None:
        (folder / key).chmod(0o644)
        (folder / key).write_bytes(data)
    else:
        store.place.put(key, data)


def in_cache(folder: Path) -> "Callable[[Flip], Iterator[None]]":
    """What flips a bit of a file in the cache; the folder may be made anew meanwhile."""

    def flipped(flip: Flip) -> Iterator[None]:
        path = folder / flip.path
        path.chmod(0o644)
        path.write_bytes(flip.of(path.read_bytes()))
        yield

    return flipped


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=200, help="in all, over the cases in turn")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--local-only", action="store_true", help="without SeaweedFS")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ronghe-bench-")))
        family = factory.write_family(work / "models", factory.Shape("llama", vocabulary=2000))
        cases = folder_cases(work, family)
        local = ArtifactStore.open((work / "store").as_uri(), cache=work / "cache")
        cases += store_cases(local, family, "local", work)
        if not arguments.local_only:
            from tests.servers.storage_servers import BUCKET, running_seaweedfs

            server = stack.enter_context(running_seaweedfs(work / "weed"))
            os.environ.update(server.environment())
            far = ArtifactStore.open(f"s3://{BUCKET}/flips", cache=work / "far-cache")
            cases += store_cases(far, family, "SeaweedFS", work)
        rows, misses = run_cases(cases, arguments.flips, arguments.seed)
    print(f"\n{markdown(('what', REFUSED, HARMLESS, MISSED), rows, left=1)}\n", flush=True)
    for miss in misses:
        say(miss)
    sys.exit(1 if misses else 0)


if __name__ == "__main__":
    main()
