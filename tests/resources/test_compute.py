"""Tags and devices."""

import pytest

from resources import compute
from resources.errors import ComputeError


def test_gpu_tags_speak_to_ray_and_kubernetes() -> None:
    limits = {"limits": {"nvidia.com/gpu": "2"}}
    assert compute.gpu_op_tags(2) == {
        "dagster-ray/config": {"num_gpus": 2},
        "dagster-k8s/config": {"container_config": {"resources": limits}},
    }
    with pytest.raises(ComputeError, match="0 GPUs were asked for; ask for at least 1"):
        compute.gpu_op_tags(0)


def test_the_device_is_one_that_is_there() -> None:
    import torch

    there = torch.cuda.is_available()
    assert compute.choose_device("cpu") == "cpu"
    assert compute.choose_device("auto") == ("cuda" if there else "cpu")
    if not there:
        with pytest.raises(ComputeError, match="PyTorch sees no GPU here; use 'cpu' or 'auto'"):
            compute.choose_device("cuda")
    with pytest.raises(ComputeError, match="device is 'gpu'; it must be one of auto, cpu, cuda"):
        compute.choose_device("gpu")
