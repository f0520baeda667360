"""`RONGHE_RAY`: merges run as jobs of a Ray cluster, on its GPU nodes, and outlive one of them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from assets.work.merging.merging import MergeJob, merge_set
from merge_ops.recipes.steps import load_steps
from merge_ops.stream.stream import StreamSettings
from orchestration.definitions import build_definitions
from orchestration.refreshing.instance import open_instance
from resources.store.artifact_store import ArtifactStore
from tests.child_forks import forking_environment
from tests.merges.merging import ROOT
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.ray_cluster import GpuNode, RayCluster, ray_cluster
from tests.orchestration.projects.tiny_project import TinyProject, make_project
from tests.servers.waiting import HANG_SECONDS, wait_until

SHAPE = factory.Shape("qwen2", layers=4, hidden=128, intermediate=12288, tied=True)  # 76 MB
SETS = ("e1+e2", "e1+e3")
RECIPE = {
    "merge_method": "dare_ties",
    "base_model": "base",
    "experts": [each.split("+") for each in SETS],
    "parameters": {"weight": 1.0, "density": 0.5},
    "sweep": {"lambda": [0.25, 0.5, 0.75]},
    "dtype": "float32",
}
ASSET = "dare_ties/merged_checkpoint"
POINTS = ("lambda=0.25", "lambda=0.75")
MATERIALIZE = ("-m", "dagster", "asset", "materialize", "-m", "orchestration.definitions")
Merged = dict[str | None, tuple[str, str]]


def local_merges(project: TinyProject) -> Merged:
    """Pull the models and merge in this process; then take the merges out of the store again."""
    job = build_definitions(project.settings()).resolve_implicit_global_asset_job_def()
    with open_instance(project.settings()) as instance:
        for model in ("base", "e1", "e2", "e3"):
            assert job.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey("model")], partition_key=model
            ).success
    store, settings = ArtifactStore.open(project.store), StreamSettings(threads=2, device="cpu")
    steps = load_steps(project.catalog / "recipes" / "dare_ties.yaml")
    points = {point.id: None for point in steps.result.coefficients()}
    found: Merged = {}
    for each in SETS:
        merged = merge_set(store, MergeJob(steps, "base", each, points), settings)
        for point in merged.checkpoints:
            content = point.artifact.manifest["content_digest"]
            found[f"{point.coefficient}|{each}"] = (point.artifact.digest, content)
    shutil.rmtree(project.root / "store" / "artifacts" / "checkpoint")
    return found


def merges(project: TinyProject) -> Merged:
    """Digest and content of each merged checkpoint, by partition."""
    store = ArtifactStore.open(project.store)
    found: Merged = {}
    for partition, ref in store.refs(ASSET).items():
        artifact = store.get(ref.kind, ref.digest)
        assert store.verify(artifact) == []
        found[partition] = (artifact.digest, artifact.manifest["content_digest"])
    return found


def two_gpus(project: TinyProject) -> None:
    """Let two merges run at once, as two GPUs allow."""
    text = (ROOT / "dagster.yaml").read_text(encoding="utf-8")
    assert text.count("default_limit: 1") == 1
    home = Path(project.environment["DAGSTER_HOME"])
    home.mkdir()
    (home / "dagster.yaml").write_text(text.replace("default_limit: 1", "default_limit: 2"))


@contextmanager
def run_of(
    expert_set: str, environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A run of all coefficients of one set, as a process of its own."""
    first, last = (f"{point}|{expert_set}" for point in POINTS)
    arguments = ["--select", f'key:"{ASSET}"', "--partition-range", f"{first}...{last}"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *MATERIALIZE, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def begun(store: Path) -> set[str]:
    """Names of what stands below the attempts of a store."""
    return {path.name for path in store.glob("attempts/*")}


def merging_node(folder: Path, before: set[str], nodes: tuple[GpuNode, ...]) -> GpuNode | None:
    """The node on which a merge has begun to write weights; None when none has."""
    for weights in folder.glob("attempts/*/model.safetensors"):
        if weights.parent.name in before or weights.stat().st_size < 1_000_000:
            continue
        with suppress(psutil.Error):
            parents = {each.pid for each in psutil.Process(writer(weights.parent)).parents()}
            return next((node for node in nodes if node.raylet in parents), None)
    return None


def writer(attempt: Path) -> int:
    """Process id of whoever makes an attempt."""
    return int(json.loads(attempt.with_suffix(".json").read_bytes())["pid"])


def lose(cluster: RayCluster, node: GpuNode) -> None:
    """SIGKILL to all of a node at once, as when a machine loses power."""
    raylet = psutil.Process(node.raylet)
    raylet.suspend()  # it must not tell anybody that its workers died
    for each in (*raylet.children(recursive=True), raylet):
        with suppress(psutil.NoSuchProcess):
            each.kill()
    cluster.remove(node)


def test_a_merge_outlives_its_node_and_has_the_digest_of_a_local_one(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"dare_ties": RECIPE}, experts=3, shape=SHAPE)
    two_gpus(project)
    expected = local_merges(project)
    assert len(expected) == len(SETS) * 3
    folder = tmp_path / "store"
    before = begun(folder)
    with ExitStack() as stack:
        cluster = stack.enter_context(ray_cluster(forking_environment(), tmp_path / "ray.log"))
        environment = {**project.environment, "RONGHE_RAY": cluster.address}
        logs = [tmp_path / f"{each}.log" for each in SETS]
        runs = [
            stack.enter_context(run_of(each, environment, log))
            for each, log in zip(SETS, logs, strict=True)
        ]
        found: list[GpuNode] = []

        def merging() -> bool:
            assert all(run.poll() is None for run in runs), [log.read_text() for log in logs]
            node = merging_node(folder, before, cluster.nodes)
            found.extend([node] if node else [])
            return node is not None

        def said() -> str:
            return f"{cluster.jobs()}, {[log.read_text() for log in logs]}"

        # From when anything is written on we look as often as can be: a merge is soon over.
        wait_until(lambda: bool(begun(folder) - before), said, 0.02)
        wait_until(merging, said, 0.002)
        (lost,) = found
        lose(cluster, lost)
        assert ArtifactStore.open(project.store).refs(ASSET) == {}
        states = [run.wait(timeout=HANG_SECONDS) for run in runs]
        assert states == [0, 0], [log.read_text() for log in logs]
        jobs = cluster.jobs()
    assert merges(project) == expected

    (left,) = (node for node in cluster.nodes if node is not lost)
    (failed,) = (name for name, job in jobs.items() if job["status"] == "FAILED")
    places = {job_id: job["driver_node_id"] for job_id, job in jobs.items() if is_merge(job)}
    assert places.pop(failed) == lost.node_id
    assert places.pop(f"{failed}-1") == left.node_id, "the step was not tried again elsewhere"
    assert list(places.values()) == [left.node_id], "the other set was not on the other GPU node"
    checks = [job["driver_node_id"] for job in jobs.values() if not is_merge(job)]
    assert len(checks) == len(SETS)
    assert not {node.node_id for node in cluster.nodes} & set(checks), "a check took a GPU node"
    check_retry(project, jobs[failed]["metadata"]["dagster/run-id"])


def is_merge(job: Mapping[str, Any]) -> bool:
    return job["metadata"]["dagster/op"] == "dare_ties__merged_checkpoint"


def check_retry(project: TinyProject, run_id: str) -> None:
    """The run had one step fail with its node, and tried it again; no slot of the pool is held."""
    with open_instance(project.settings()) as instance:
        events = [e.dagster_event for e in instance.all_logs(run_id) if e.dagster_event is not None]
        retries = [e for e in events if e.event_type_value == "STEP_UP_FOR_RETRY"]
        assert len(retries) == 1
        assert "failed health check" in str(retries[0].step_retry_data.error)
        assert "STEP_RESTARTED" in {e.event_type_value for e in events}
        pool = instance.event_log_storage.get_concurrency_info("gpu")
        assert pool.claimed_slots == []
