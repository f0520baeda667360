"""Tags that ask for GPUs."""

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
