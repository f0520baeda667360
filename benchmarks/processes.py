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

ROOT = Path(__file__).resolve().parent.parent

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
    """One process: seconds of wall clock and of CPU, MiB of peak memory, all and anonymous."""

    wall: float
    cpu: float
    peak: float
    anonymous: float


def measure(command: Sequence[str]) -> Run:
    """Runs one process to its end and measures it; stops the benchmark if it fails."""
    os.sync()  # what the run before wrote is not charged to this one
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        anonymous = 0.0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            anonymous = max(anonymous, anonymous_mib(process.pid))
            time.sleep(0.01)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{shlex.join(command)}\n{output.read().decode()[-3000:]}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, anonymous)


def anonymous_mib(pid: int) -> float:
    """The anonymous resident memory of a process now, in MiB; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def middle(runs: Sequence[Run]) -> Run:
    """The median of each figure."""
    return Run(
        *(median(values) for values in zip(*(asdict(run).values() for run in runs), strict=True))
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
