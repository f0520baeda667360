"""Machines to compute on: tags that ask a cluster for GPUs, the number of threads."""

import os
from pathlib import Path
from typing import Any

from resources.errors import ComputeError


def gpu_op_tags(gpus: int = 1) -> dict[str, Any]:
    """Return Dagster op tags that reserve GPUs under Ray and Kubernetes.

    They mean nothing to the executors that run on one machine.

    Args:
        gpus: whole GPUs of one step, at least 1.
    """
    if gpus < 1:
        raise ComputeError(f"{gpus} GPUs were asked for; ask for at least 1, or leave the tags out")
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "dagster-ray/config": {"num_gpus": gpus},
        "dagster-k8s/config": {"container_config": {"resources": limits}},
    }


def thread_count(wanted: int | None = None) -> int:
    """Return how many threads to use: `wanted`, else the cores this process may use.

    A container's CPU limit (cgroup v2) counts as well as the CPU affinity.

    Raises:
        ComputeError: `wanted` is below 1.
    """
    if wanted is None:
        usable = getattr(os, "sched_getaffinity", None)  # Linux alone knows
        cores = len(usable(0)) if usable else os.cpu_count() or 1
        return max(1, min(cores, _container_limit()))
    if wanted < 1:
        raise ComputeError(f"the number of threads is {wanted}; it must be at least 1")
    return wanted


def _container_limit(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Whole cores of the container's quota, rounded up; very many when there is no quota."""
    try:
        quota, period = cpu_max.read_text().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup v2, or the quota is 'max'
        return 1 << 16
