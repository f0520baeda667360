"""How a tensor is cut into blocks."""

from __future__ import annotations

from math import prod

from merge_ops.plans.steps import Step


def ranges(tensor: Step, block: int) -> list[tuple[int, int]]:
    """Runs (start, count) of at most `block` elements; whole rows or all of it where span says.

    Rows come in powers of two, so that their column sums are steps of one sum (`column_sums`).
    """
    shape = tensor.output.shape
    count = max(1, prod(shape))
    if count <= block and tensor.span != "row":
        return [(0, count)]
    if tensor.span == "tensor":
        block = count
    elif tensor.span == "row":
        row = max(1, shape[-1]) if shape else 1
        block = row << max(0, (block // row).bit_length() - 1)
    return [(start, min(block, count - start)) for start in range(0, count, block)]
