"""Memory that a merge frees, kept for its next block instead of given back to the kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

# Of glibc's malloc.h; by default both grow with what is freed, up to these bounds.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_ON_HEAP, _USUAL_TRIM = 32 << 20, 64 << 20
_KEPT = 1 << 30


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """Have glibc keep what is freed, up to a GiB, and give it back at the end.

    Left alone it gives megabytes back to the kernel and faults them in again, block after block,
    which took a seventh of the time of a merge by ties. Other C libraries are left as they are.
    """
    try:
        library = ctypes.CDLL(None)
        mallopt, malloc_trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM)
        malloc_trim(0)
