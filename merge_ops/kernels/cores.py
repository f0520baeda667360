"""How much of the machine this process may use: cores and memory, by affinity and containers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores this process may use, at least 1; a part of a core counts as one.

    The least of the CPU affinity and the quotas of every control group it is in counts. `root` is
    where `proc` and `sys` are.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def memory_limits(root: Path = Path("/")) -> Iterator[int]:
    """Yield the limit of memory, in bytes, of every control group that this process is in."""
    for controllers, path in _memberships(root):
        if not controllers:
            files = (each / "memory.max" for each in _groups(root / "sys/fs/cgroup", path))
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controllers
            files = (each / "memory.limit_in_bytes" for each in _groups(mount, path))
        else:
            continue
        yield from (int(word) for file in files for word in _words(file)[:1] if word.isdigit())


@contextmanager
def torch_threads(count: int) -> Generator[None]:
    """Have torch use so many threads for one operation; 0 is one for each core of this process.

    Left alone it takes one for each core of the machine, whatever its container may use, and they
    wait for each other.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or usable_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_one_thread(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have a function's operations of torch on one thread: they are short, and add up alike."""

    @functools.wraps(function)
    def pinned(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch_threads(1):
            return function(*args, **kwargs)

    return pinned


def _memberships(root: Path) -> Iterator[tuple[str, str]]:
    """Controllers (none in version 2) and path of each control group of this process."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            yield controllers, path


def _quotas(root: Path) -> Iterator[int]:
    """Whole cores of each quota above this process, rounded up; cgroups of version 2 and 1."""
    for controllers, path in _memberships(root):
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
