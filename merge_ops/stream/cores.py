"""How many cores this process may use: its affinity, and the CPU quota of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores this process may use, at least 1; a part of a core counts as one.

    The least of the CPU affinity and the quotas of every control group it is in counts. `root` is
    where `proc` and `sys` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> Iterator[int]:
    """Whole cores of each quota above this process, rounded up; cgroups of version 2 and 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _groups(root / "sys/fs/cgroup", path):
                yield from _cores(_words(group / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for group in _groups(root / "sys/fs/cgroup" / controllers, path):
                quota, period = group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"
                yield from _cores([*_words(quota), *_words(period)])


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """The group at `path` and all above it: a quota binds whatever is below.

    Inside a container the path may be the host's, which is not there; the mount itself is.
    """
    group = mount / path.strip("/")
    yield group
    while group != mount:
        group = group.parent
        yield group


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _cores(words: list[str]) -> Iterator[int]:
    """The quota of `words`, microseconds of work in each so many; none for `max` or -1."""
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
        yield -(-int(words[0]) // int(words[1]))
