"""Weighted sums of bfloat16 as it is stored: blocks are never made float32.

Making float32 of every input's block, and going over all of them again, costs more than reading
them. A method that only sums its inputs (registry: `sums_inputs`) is asked for its sums first, and
one loop in C then widens, subtracts the base, sums, adds the base and rounds strip by strip: the
same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_void_p
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.checkpoints.checkpoint import Stored
from merge_ops.kernels.loops import floats, library
from merge_ops.measures.combination import WeightedSum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.methods.registry import MergeMethod
    from merge_ops.plans.steps import Merge


def is_sum_of_stored(method: MergeMethod, tensor: Merge) -> bool:
    """Whether a planned tensor is a sum of inputs that lie in their files as the bfloat16 it is."""
    return (
        method.sums_inputs
        and tensor.output.dtype == "BF16"
        and all(isinstance(each, Stored) and each.dtype == "BF16" for each in tensor.sources)
    )


def sums_of_stored(
    sums: Sequence[WeightedSum], base: NDArray[np.uint16] | None
) -> tuple[list[NDArray[np.uint16]], bool]:
    """The bits of sums of the same stored parts, shape (n,), each minus the base, plus the base.

    Beside them whether all that is stored is finite. Raises MemoryError.
    """
    loops = library()
    assert loops is not None, "who works on arrays has the loops in C"
    parts = [np.asarray(each) for each in sums[0].parts]
    outs = [np.empty(len(parts[0]), dtype=np.uint16) for _ in sums]
    numbers = [x for each in sums for x in (*each.weights, each.divisor, each.scale)]
    bad = loops.sums_of_bfloat16(
        _places(parts), base if base is None else base.ctypes.data, len(parts), len(parts[0]),
        len(sums), floats(numbers), _places(outs),
    )  # fmt: skip
    if bad < 0:
        raise MemoryError
    return outs, not bad


def _places(arrays: Sequence[NDArray[np.uint16]]) -> object:
    return (c_void_p * len(arrays))(*(each.ctypes.data for each in arrays))
