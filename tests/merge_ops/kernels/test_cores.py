"""The number of cores: affinity, and a container's quota."""

import os
from pathlib import Path

import pytest

from merge_ops.jobs.statistics import interference, task_vector_statistics
from merge_ops.kernels.cores import memory_limits, on_one_thread, torch_threads, usable_cores
from merge_ops.stream.room import machine_memory
from merge_ops.stream.settings import StreamSettings


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose affinity allows 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A root with the control groups of one process, and what the kernel says of them."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_here_it_is_at_most_the_affinity() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))
    assert StreamSettings().thread_count() == usable_cores()
    assert StreamSettings(threads=7).thread_count() == 7


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("said", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("9900000 100000\n", 64),
        ("max 100000\n", 64),
        ("200000\n", 64),
        ("nonsense\n", 64),
    ],
)
def test_a_container_of_version_2(tmp_path: Path, said: str, cores: int) -> None:
    assert usable_cores(machine(tmp_path, "0::/\n", {"cpu.max": said})) == cores


@pytest.mark.usefixtures("many")
def test_a_quota_of_a_group_above_binds(tmp_path: Path) -> None:
    files = {"pods.slice/cpu.max": "300000 100000", "pods.slice/pod/cpu.max": "max 100000"}
    assert usable_cores(machine(tmp_path, "0::/pods.slice/pod\n", files)) == 3


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("path", ["/", "/docker/0123", "/docker"])
def test_a_container_of_version_1(tmp_path: Path, path: str) -> None:
    """The path may be the host's, of which only the container's own part is mounted."""
    groups = f"11:memory:/\n4:cpu,cpuacct:{path}\n0::/\n"
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "memory/cpu.cfs_quota_us": "100000\n",
    }
    assert usable_cores(machine(tmp_path, groups, files)) == 3


@pytest.mark.usefixtures("many")
def test_a_machine_without_quotas(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert usable_cores(machine(tmp_path / "free", "4:cpu:/\n", files)) == 64
    assert usable_cores(tmp_path / "nothing at all") == 64


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        ("0::/\n", {"memory.max": "1073741824\n"}, [1 << 30]),
        ("0::/\n", {"memory.max": "max\n"}, []),
        (
            "0::/pods/one\n",
            {"pods/memory.max": "2000", "pods/one/memory.max": "3000"},
            [3000, 2000],
        ),
        ("4:memory:/docker/x\n", {"memory/memory.limit_in_bytes": "4096\n"}, [4096]),
        ("4:memory:/\n1:cpu:/\n", {"memory/memory.limit_in_bytes": "no\n"}, []),
        ("nonsense\n", {"memory.max": "1"}, []),
        ("", {}, []),
    ],
)
def test_limits_of_memory_are_those_of_all_groups(tmp_path, groups, files, limits) -> None:
    assert list(memory_limits(machine(tmp_path, groups, files))) == limits


def test_the_machine_has_at_most_what_its_container_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merge_ops.stream.room.memory_limits", lambda: iter([1 << 20, 1 << 40]))
    assert machine_memory() == 1 << 20
    monkeypatch.setattr("merge_ops.stream.room.memory_limits", lambda: iter([1 << 62]))
    assert machine_memory() < 1 << 62


def test_statistics_take_one_thread_and_leave_torch_as_it_was() -> None:
    import torch

    before = torch.get_num_threads()
    seen: list[int] = []
    on_one_thread(lambda: seen.append(torch.get_num_threads()))()
    with torch_threads(0):
        seen.append(torch.get_num_threads())
    assert seen == [1, usable_cores()]
    assert torch.get_num_threads() == before
    assert hasattr(task_vector_statistics, "__wrapped__")
    assert hasattr(interference, "__wrapped__")
