"""Machines to compute on: tags that ask a cluster for GPUs."""

from typing import Any

from resources.errors import ComputeError


def gpu_op_tags(gpus: int = 1) -> dict[str, Any]:
    """Return Dagster op tags that reserve GPUs under Ray and Kubernetes.

    They are whole GPUs of one step, and mean nothing to the executors that run on one machine.
    ComputeError is raised for fewer than 1.
    """
    if gpus < 1:
        raise ComputeError(f"{gpus} GPUs were asked for; ask for at least 1, or leave the tags out")
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return {
        "dagster-ray/config": {"num_gpus": gpus},
        "dagster-k8s/config": {"container_config": {"resources": limits}},
    }
