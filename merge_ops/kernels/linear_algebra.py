"""What decides the bits of products and decompositions of matrices on this CPU.

The libraries that torch calls for them (MKL, OpenBLAS) choose their code by the processor, and what
they add up in which order follows from it. No setting makes all of them agree, so a plan that rests
on them names the kind of library and processor in its digest.
"""

from __future__ import annotations

import functools
import itertools
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from merge_ops.kernels.compile import processor

# What an x86 or ARM processor is, in /proc/cpuinfo.
_FIELDS = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
# What makes the libraries take other code than the processor's own.
_SWITCHES = (
    "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_CORETYPE",
)  # fmt: skip


def linear_algebra_kind() -> str:
    """The version of torch, the processor, and what was set for the libraries, in one line."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "none"
    switches = [f"{name}={os.environ[name]}" for name in _SWITCHES if os.environ.get(name)]
    return " ".join(["torch", torch, _processor(), processor(), *switches])


@functools.cache
def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            first = itertools.takewhile(str.strip, lines)  # of the first core
            pairs = [line.split(":", 1) for line in first if ":" in line]
    except OSError:
        pairs = []
    known = {name.strip(): value.strip() for name, value in pairs}
    return " ".join([platform.machine(), *(known[each] for each in _FIELDS if each in known)])
