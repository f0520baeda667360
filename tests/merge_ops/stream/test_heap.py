"""Memory that is freed stays with the process while it merges, and goes back afterwards."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import numpy as np
from merge_ops.stream.heap import freed_memory_kept

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

def use_and_free():
    blocks = [np.ones(1 << 20, dtype=np.uint8) for _ in range(64)]
    del blocks

before = resident()
with freed_memory_kept():
    use_and_free()
    within = resident()
print(within - before, resident() - before)
"""


def has_glibc() -> bool:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") is not None
    except (ValueError, OSError):
        return False


@pytest.mark.skipif(not has_glibc(), reason="only glibc is told what to keep")
def test_freed_memory_is_kept_for_a_while():
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)
    kept, left = (int(pages) * os.sysconf("SC_PAGE_SIZE") for pages in done.stdout.split())
    assert kept > 60 << 20
    assert left < 8 << 20
