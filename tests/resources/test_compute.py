"""Tags and threads."""

import os
from pathlib import Path

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


def test_threads_are_the_cores_this_process_may_use() -> None:
    assert 1 <= compute.thread_count() <= len(os.sched_getaffinity(0))
    assert compute.thread_count(7) == 7
    with pytest.raises(ComputeError, match="the number of threads is 0; it must be at least 1"):
        compute.thread_count(0)


@pytest.mark.parametrize(
    ("text", "cores"), [("150000 100000", 2), ("max 100000", 1 << 16), ("50000 100000", 1)]
)
def test_a_container_s_quota_counts(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert compute._container_limit(tmp_path / "cpu.max") == cores
