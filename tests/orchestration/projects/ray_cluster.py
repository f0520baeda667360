"""A Ray cluster of three nodes on this machine: a head without a GPU, two nodes with a fake one.

As a program, it starts the cluster and prints one line of JSON with what it is; it then obeys lines
of its standard input (`remove N` takes the Nth GPU node out) and ends with its input.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.merges.merging import ROOT
from tests.servers.storage_servers import free_ports
from tests.servers.waiting import HANG_SECONDS

GPU_NODES = 2


@dataclass(frozen=True)
class GpuNode:
    """A node: Ray's id of it, and its raylet, which all its workers descend from."""

    node_id: str
    raylet: int


@dataclass(frozen=True)
class RayCluster:
    """A running cluster; `address` takes jobs."""

    address: str
    nodes: tuple[GpuNode, ...]
    process: subprocess.Popen[str]

    def jobs(self) -> dict[str, dict[str, Any]]:
        """What Ray's job API says of each submitted job, by submission id."""
        with urllib.request.urlopen(f"{self.address}/api/jobs/", timeout=HANG_SECONDS) as answer:
            return {job["submission_id"]: job for job in json.load(answer) if job["submission_id"]}

    def remove(self, node: GpuNode) -> None:
        """Take a node out, what is left of it by SIGKILL."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"remove {self.nodes.index(node)}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "removed\n"


@contextmanager
def ray_cluster(environment: Mapping[str, str], log: Path) -> Iterator[RayCluster]:
    """Start a cluster whose jobs have `environment` beside that of this process."""
    temporary = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets allow no longer path
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RAY_TMPDIR": temporary,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.orchestration.projects.ray_cluster"],
            cwd=ROOT,
            env={**os.environ, **own, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the cluster did not start\n{log.read_text()[-4000:]}"
        known = json.loads(line)
        nodes = tuple(GpuNode(*node) for node in known["nodes"])
        yield RayCluster(known["address"], nodes, process)
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        shutil.rmtree(temporary, ignore_errors=True)


def _serve() -> None:
    from ray.cluster_utils import Cluster

    (port,) = free_ports(1)
    # A dead node refuses the connection: three checks and it is out. A slow one may take its time.
    quick = {
        "health_check_period_ms": 1000,
        "health_check_failure_threshold": 3,
        "health_check_timeout_ms": int(HANG_SECONDS * 1000),
    }
    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": True, "dashboard_port": port}
    cluster = Cluster(True, head_node_args={**head, "_system_config": quick})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(GPU_NODES)]
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    known = [[node.node_id, pid] for node, pid in zip(nodes, pids, strict=True)]
    print(json.dumps({"address": f"http://127.0.0.1:{port}", "nodes": known}), flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes[int(line.split()[1])], allow_graceful=False)
        print("removed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve()
