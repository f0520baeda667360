"""Test files on a slow machine: `python -m benchmarks.slow_machine [--share 0.25] [FILE …]`.

Each file runs on one core, in a control group that gets a share of it, and so do all processes that
it starts. Without files it runs the heaviest ones. A file whose verdict differs from that at full
speed depends on speed. Needs root, and control groups of version 1 or 2 that may be written.
"""

import argparse
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
PERIOD = 100_000
"""Microseconds, the kernel's own: of a tenth of a second a group runs its share, then it waits."""
ROOT = Path(__file__).resolve().parent.parent
HEAVIEST = (
    "tests/orchestration/test_team.py",
    "tests/orchestration/test_web_and_daemon.py",
    "tests/orchestration/refreshing/test_broken_parts.py",
    "tests/orchestration/test_ray.py",
    "tests/orchestration/refreshing/test_refresh.py",
    "tests/benchmarks/test_hostile.py",
    "tests/merge_ops/methods/test_contract.py",
    "tests/packaging/test_wheel.py",
    "tests/oracle/test_one_digest_one_file.py",
    "tests/examples/test_quickstart.py",
)
"""By CPU seconds of a whole run at full speed, with those of the processes that they start."""


@contextmanager
def share_of_a_core(share: float) -> Iterator[Path]:
    """A control group that gets so much of a core; yields the file that takes process ids."""
    unified = (GROUPS / "cgroup.controllers").exists()
    group = (GROUPS if unified else GROUPS / "cpu") / f"ronghe-{uuid.uuid4().hex[:8]}"
    quota = int(share * PERIOD)
    try:
        if unified:
            (GROUPS / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        if unified:
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
    except OSError as error:
        raise SystemExit(f"no control group can be made here ({error}); run this as root") from None
    try:
        yield group / "cgroup.procs"
    finally:
        with suppress(OSError):  # a process that the tests left behind keeps the group
            group.rmdir()


def run(command: list[str], members: Path) -> tuple[int, str, float]:
    """Run a command as a member of a group, on one core; its status, last line and wall seconds."""
    core = min(os.sched_getaffinity(0))

    def join() -> None:
        os.sched_setaffinity(0, {core})
        members.write_text(str(os.getpid()))

    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=join)
    seconds = time.monotonic() - started
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], sep="\n")
    lines = done.stdout.strip().splitlines()
    return done.returncode, lines[-1] if lines else "", seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", default=HEAVIEST)
    parser.add_argument("--share", type=float, default=0.25, help="of one core")
    given = parser.parse_args()
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    failed = 0
    for file in given.files:
        with share_of_a_core(given.share) as members:
            status, last, seconds = run([*pytest, file], members)
        failed += status != 0
        print(
            f"{'passed' if status == 0 else 'FAILED'} {seconds:6.0f} s  {file}  {last}", flush=True
        )
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
