"""Machines to compute on: tags that ask a cluster for GPUs, and the device."""

from typing import Any

from resources.errors import ComputeError

DEVICES = ("auto", "cpu", "cuda")


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


def choose_device(wanted: str = "auto") -> str:
    """Return `cuda` or `cpu`; `auto` takes a GPU when PyTorch sees one.

    ComputeError is raised for an unknown device, and for `cuda` where there is none.
    """
    if wanted not in DEVICES:
        raise ComputeError(f"device is {wanted!r}; it must be one of {', '.join(DEVICES)}")
    if wanted == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise ComputeError(
            "device is 'cuda', but PyTorch sees no GPU here; use 'cpu' or 'auto', or install a "
            "CUDA build of PyTorch on a machine with a GPU"
        )
    return "cpu"
