"""Measuring whole processes: wall clock, CPU, peak memory; and what machine they ran on.

The measuring process must stay small: a child's ru_maxrss starts at its parent's size. So nothing
here imports torch.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]

COPY = """
import sys
buffer = bytearray(8 << 20)
with open(sys.argv[1], "wb") as out:
    for position, path in enumerate(sys.argv[2:]):
        with open(path, "rb", buffering=0) as source:
            while count := source.readinto(buffer):
                if position == 0:
                    out.write(memoryview(buffer)[:count])
"""


@dataclass(frozen=True)
class Run:
    """One process: seconds of wall clock and of CPU, MiB of peak memory, all and anonymous.

    `anonymous` is the sum over the process and its children at one time, `peak` that of the
    largest of them.
    `read` is the MB (10⁶ bytes) it asked the kernel for by read calls, cached or not, its children
    included; what it maps does not count.
    """

    wall: float
    cpu: float
    peak: float
    anonymous: float
    read: float


class RunFailedError(Exception):
    """A measured process ended with an error; the message has its command and last output."""


def measure(command: Sequence[str], **variables: str) -> Run:
    """Runs one process, with further environment variables, and measures it.

    Raises RunFailedError where it fails.
    """
    os.sync()  # what the run before wrote is not charged to this one
    environment = os.environ | {"HF_HUB_OFFLINE": "1"} | variables
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        anonymous = 0.0
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            held = sum(proc_figure(pid, "status", "RssAnon:") for pid in with_children(process.pid))
            anonymous = max(anonymous, held / 1024)
            time.sleep(0.01)
        wall = time.perf_counter() - started
        read = proc_figure(process.pid, "io", "rchar:") / 1e6  # a zombie still has its counts
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            told = output.read().decode(errors="replace")[-3000:]
            raise RunFailedError(f"{shlex.join(command)}\nended with {process.returncode}\n{told}")
    cpu = usage.ru_utime + usage.ru_stime
    return Run(wall, cpu, usage.ru_maxrss / 1024, anonymous, read)


def with_children(pid: int) -> list[int]:
    """A process and all that it started, as far as they are there."""
    found = [pid]
    for each in found:  # grows on the way
        try:
            listed = Path(f"/proc/{each}/task/{each}/children").read_text(encoding="ascii").split()
        except OSError:
            continue
        found += map(int, listed)
    return found


def proc_figure(pid: int, file: str, key: str) -> int:
    """One number from /proc/PID; 0 when the process, or the figure, is gone."""
    try:
        text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def middle(runs: Sequence[Run]) -> Run:
    """The median of each figure."""
    return Run(
        *(median(values) for values in zip(*(asdict(run).values() for run in runs), strict=True))
    )


def added(runs: Sequence[Run]) -> Run:
    """Processes one after the other as if they were one: sums, and the highest memory."""
    return Run(
        sum(run.wall for run in runs),
        sum(run.cpu for run in runs),
        max(run.peak for run in runs),
        max(run.anonymous for run in runs),
        sum(run.read for run in runs),
    )


def machine() -> dict[str, object]:
    """What the figures depend on."""
    names = ("ronghe", "torch", "safetensors", "transformers")
    code = (
        "import importlib.metadata as m, json; known = {d.metadata['Name']: d.version "
        f"for d in m.distributions()}}; print(json.dumps({{n: known.get(n) for n in {names}}}))"
    )
    processor = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mergekit": "0.1.5",
        **json.loads(versions.stdout),
    }
