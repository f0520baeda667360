"""The compiled loops as a library of this process.

kernels.c has the loops (kernels_masks.c those of random masks, kernels_stored.c those on what is
stored, kernels_elementary.c exp, log and tanh, kernels_checksums.c reads that are checked);
compile.py makes libraries of them when Ronghe is installed. Calls let go of Python's lock.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_float, c_int, c_int64, c_uint32, c_uint64, c_void_p

_SIGNATURES = {
    "from_bfloat16": (c_int, (c_void_p, c_void_p, c_void_p, c_int64)),
    "to_bfloat16": (c_int, (c_void_p, c_void_p, c_void_p, c_int64)),
    "under_brackets": (
        None,
        (c_void_p, c_int64, c_int64, c_void_p, POINTER(c_void_p), c_void_p),
    ),
    "disjoint_merge": (
        c_int,
        (POINTER(c_void_p), c_void_p, POINTER(c_float), POINTER(c_float), POINTER(c_float), c_int64,
         c_int64, c_int, c_float, c_float, c_void_p),
    ),
    "weighted_sum": (
        None,
        (POINTER(c_void_p), c_void_p, POINTER(c_float), c_int64, c_int64, c_float, c_float,
         c_void_p),
    ),
    "weighted_sums_to_bfloat16": (
        c_int,
        (POINTER(c_void_p), c_void_p, c_int64, c_int64, c_int64, POINTER(c_float), c_void_p,
         POINTER(c_void_p)),
    ),
    "sums_of_bfloat16": (
        c_int,
        (POINTER(c_void_p), c_void_p, c_int64, c_int64, c_int64, POINTER(c_float),
         POINTER(c_void_p)),
    ),
    "keep_band": (
        None,
        (c_void_p, c_void_p, c_int64, c_uint32, c_int64, c_uint32, c_int64, c_void_p),
    ),
    "squares_above": (
        c_int64,
        (POINTER(c_void_p), c_int64, c_void_p, c_float, c_int64, c_int64, c_void_p),
    ),
    "leaf_sums": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
    "variance": (c_int64, (POINTER(c_void_p), c_int64, c_int64, c_void_p)),
    "pick_between": (
        c_int64,
        (c_void_p, c_uint32, c_uint32, POINTER(c_void_p), c_int64, c_int64, c_void_p),
    ),
    "keep": (None, (c_uint64, c_uint64, c_int64, c_int64, c_uint32, c_void_p, c_void_p)),
    "row_ranks": (c_int, (c_void_p, c_int64, c_int64, c_void_p)),
    "decide_by_rank": (
        c_int,
        (c_uint64, c_uint64, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_void_p),
    ),
    "apply_decided": (None, (c_void_p, c_void_p, c_int64, c_int64, c_float, c_void_p)),
    "exponential": (None, (c_void_p, c_int64)),
    "logarithm": (None, (c_void_p, c_int64)),
    "hyperbolic_tangent": (None, (c_void_p, c_int64)),
    "checksums": (None, (c_void_p, c_int64, c_int64, c_void_p)),
    "read_checked": (
        c_int64,
        (c_int, c_int64, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p),
    ),
    "decided_sums": (None, (c_void_p, c_void_p, c_int64, c_int64, c_void_p)),
}  # fmt: skip


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loops for this processor, or None where they were not compiled from this source."""
    # What compiles comes along.
    from merge_ops.kernels.compile import library_file, processor, source_digest

    file = library_file(processor())
    try:
        compiled = ctypes.CDLL(str(file))
        compiled.source_digest.restype = ctypes.c_char_p
        if compiled.source_digest().decode() != source_digest():
            return None
    except OSError:
        return None
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(compiled, name)
        function.restype, function.argtypes = result, arguments
    return compiled
