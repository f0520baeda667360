"""The same bytes whatever the threads, block size, sharding of the inputs and PYTHONHASHSEED."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import blake3
import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.jobs.assembly import merge
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.stream import StreamSettings
from tests.child_forks import forking_environment
from tests.models.checkpoint_factory import QWEN2, Shape, write_family
from tests.oracle.peers.oracle_environment import write_config
from tests.servers.waiting import HANG_SECONDS

KI, MI = 1 << 10, 1 << 20
# One tensor of 17.3 Mi elements: more than the largest block, and more than float32 counts.
BIG = Shape("llama", 1, 1024, 512, 8, 2, vocabulary=17_700, tied=True, dtype=torch.bfloat16)
# One of 4.3 Mi: 69 of the smallest blocks, more than the second largest, and whole in the largest.
LARGE = replace(BIG, vocabulary=4_400)
# (threads, elements of a block): every thread count, and every power of four of blocks. A thread
# takes whole blocks, so that pairs would add nothing.
SETTINGS = [(2, 64 * KI), (4, 256 * KI), (2, MI), (4, 4 * MI), (1, 16 * MI)]
EXPERTS = """
base_model: $base
models:
  - {model: $one, parameters: {weight: 0.6}}
  - {model: $two, parameters: {weight: 0.7}}
"""
METHODS = {
    "linear": EXPERTS + "parameters: {weight: 0.2}",
    "slerp": """
base_model: $base
models: [{model: $one}]
parameters: {t: 0.3}
""",
    "task_arithmetic": EXPERTS,
    "ties": EXPERTS + "parameters: {density: 0.3}",
    "dare_linear": EXPERTS + "parameters: {density: 0.4}",
    "dare_ties": EXPERTS + "parameters: {density: 0.4}",
}


class HashedFile:
    """A file of which only the digest is kept."""

    def __init__(self, digests: dict[str, str], name: str) -> None:
        self._digests, self._name, self._hash = digests, name, blake3.blake3()

    def __enter__(self) -> "HashedFile":
        return self

    def write(self, data: memoryview | bytes) -> None:
        self._hash.update(data)

    def __exit__(self, *error: object) -> None:
        self._digests[self._name] = self._hash.hexdigest()


class HashingSink:
    """A place to merge into that keeps the digest of every file."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}

    def open(self, file: str, size: int) -> HashedFile:
        return HashedFile(self.digests, file)


def merged_digests(method: str, models: Path, settings: StreamSettings) -> dict[str, str]:
    """The digest of every file of a merge of models/base, models/expert-1 and -2."""
    text = f"merge_method: {method}\n" + METHODS[method].replace("$", "")
    recipe = parse_recipe(text, method, method)
    folders = {"base": "base", "one": "expert-1", "two": "expert-2"}
    opened = {
        name: open_checkpoint(name, FolderSource(models / folders[name]))
        for name in recipe.referenced_models
    }
    sink = HashingSink()
    merge(plan_merge(recipe, opened), {"default": sink}, settings)
    return sink.digests


@pytest.fixture(scope="module")
def big_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base and two experts with one tensor larger than any block; 60 MB each."""
    yield from family(tmp_path_factory.mktemp("big"), BIG)


@pytest.fixture(scope="module")
def large_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A base and two experts of 10 MB each."""
    yield from family(tmp_path_factory.mktemp("large"), LARGE)


def family(work: Path, shape: Shape) -> Iterator[Path]:
    write_family(work, shape, experts=2, spread=5e-4)
    yield work
    for file in work.rglob("*.safetensors"):
        file.unlink()


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_blocks_change_nothing(large_models: Path, method: str) -> None:
    results = {
        (threads, block): merged_digests(
            method, large_models, StreamSettings(threads=threads, device="cpu", block=block)
        )
        for threads, block in SETTINGS
    }
    first = results[1, 16 * MI]
    assert "model.safetensors" in first
    differing = [setting for setting, digests in results.items() if digests != first]
    assert not differing


def test_the_memory_bound_changes_nothing(big_models: Path) -> None:
    """What `memory` and `threads` decide is the size of a block, of which more is asked above."""
    small = StreamSettings(threads=2, device="cpu", memory=16 * MI)
    large = StreamSettings(threads=2, device="cpu", memory=1024 * MI)
    assert 64 * KI <= small.block_for(3, 1) < large.block_for(3, 1) <= 16 * MI
    assert merged_digests("ties", big_models, small) == merged_digests("ties", big_models, large)


def test_blocks_of_a_tensor_beyond_all_of_them_change_nothing(big_models: Path) -> None:
    """Of entries that are drawn, too; of those that are counted the test above."""
    settings = [
        StreamSettings(threads=n, device="cpu", block=b) for n, b in (SETTINGS[1], SETTINGS[-1])
    ]
    first, second = (merged_digests("dare_ties", big_models, each) for each in settings)
    assert first == second


@pytest.mark.parametrize("method", METHODS)
def test_sharding_of_the_inputs_changes_nothing(tmp_path: Path, method: str) -> None:
    settings = StreamSettings(threads=2, device="cpu")
    digests = []
    for shards in (1, 3):
        write_family(tmp_path / str(shards), QWEN2, experts=2, shards=shards)
        digests.append(merged_digests(method, tmp_path / str(shards), settings))
    weights = [each["model.safetensors"] for each in digests]
    assert weights[0] == weights[1]


def test_pythonhashseed_changes_nothing(tmp_path: Path) -> None:
    """`ronghe merge` of all methods under three hash seeds: every file of OUT is the same."""
    base, (one, two) = write_family(tmp_path, QWEN2, experts=2)
    for method, text in METHODS.items():
        config = f"merge_method: {method}\n{text}"
        write_config(tmp_path / f"{method}.yaml", config, {"base": base, "one": one, "two": two})
    code = """
import hashlib, json, pathlib, sys
from orchestration.commands.cli import app
work, seed, *methods = sys.argv[1:]
work = pathlib.Path(work)
digests = {}
for method in methods:
    out = work / seed / method
    looked = [] if method == methods[0] else ["--no-verify"]  # transformers is asked once
    app(["merge", *looked, str(work / f"{method}.yaml"), str(out)], standalone_mode=False)
    for file in sorted(out.rglob("*")):
        digests[f"{method}/{file.name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
print(json.dumps(digests))
"""
    results = []
    for seed in ("0", "1", "4242"):
        (tmp_path / seed).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), seed, *METHODS],
            env=os.environ | forking_environment() | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout.splitlines()[-1]))
    assert sum(name.endswith("/model.safetensors") for name in results[0]) == len(METHODS)
    for other in results[1:]:
        assert other == results[0]
