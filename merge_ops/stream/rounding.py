"""From what a method made to bytes of the output: the only place that asks what a result is.

A method returns values, or a weighted sum that is yet to be worked out. Sums of the inputs take no
memory, so several of them (the coefficients of a sweep) are made and rounded in one pass, and where
nothing of the inputs was looked at, from bfloat16 as it is stored: making float32 of every input's
block, and going over all of them again, costs more than reading them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import is_
from typing import TYPE_CHECKING, TypeVar

from merge_ops.checkpoints.checkpoint import Stored
from merge_ops.kernels.arithmetic import Arithmetic
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.trimmed_blocks import blocks_of
from merge_ops.stream.overflow import NotFinite

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Values
    from merge_ops.methods.registry import MergeMethod
    from merge_ops.plans.steps import Merge

Result = TypeVar("Result")


def torch_dtype(code: str) -> torch.dtype:
    """The torch dtype of a safetensors float code."""
    import torch

    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16
    }[code]  # fmt: skip


def worked_out(result: Values | WeightedSum, arithmetic: Arithmetic) -> Values:
    """It makes values of what a method returned: those, or the sum, of the same shape."""
    if isinstance(result, WeightedSum):
        return result.made(arithmetic)
    return arithmetic.own(result)


def encoded(
    results: Iterable[Values | WeightedSum],
    inputs: Sequence[Values],
    base: Values | None,
    code: str,
    arithmetic: Arithmetic,
) -> list[NDArray[np.uint8]]:
    """What a method made of the inputs for each coefficient, as bytes of a safetensors dtype.

    Blocks of n elements in any shape; the base is flat, (n,). Each result is added to the base
    where there is one, and rounded once. Results may be overwritten; of those that are no sums of
    the inputs two are held at a time. Raises NotFinite where what is rounded holds NaN or infinity.
    """
    blocks: list[NDArray[np.uint8]] = []
    finite = True
    for group in grouped(results, inputs):
        sums = [result for result in group if isinstance(result, WeightedSum)]
        if sums and code == "BF16":
            numbers = [each.numbers for each in sums]
            rounded, sound = arithmetic.rounded_sums(*blocks_of(sums[0].parts), numbers, base)
            blocks += rounded
            finite = finite and sound
            continue
        for result in group:
            values = worked_out(result, arithmetic)
            block, sound = arithmetic.rounded(values.reshape(-1), base, code)
            del values  # two results are held at a time, not three
            blocks.append(block)
            finite = finite and sound
    if not finite:
        raise NotFinite
    return blocks


def grouped(
    results: Iterable[Values | WeightedSum], inputs: Sequence[Values]
) -> Iterator[list[Values | WeightedSum]]:
    """It groups results in order: sums of the inputs together, which take no memory; others alone.

    Results and inputs are blocks of any shape, and stay as they are.
    """
    sums: list[Values | WeightedSum] = []
    for result in results:
        if isinstance(result, WeightedSum) and _is_of(result, inputs):
            sums.append(result)
            continue
        if sums:
            yield sums
            sums = []
        yield [result]
    if sums:
        yield sums


def _is_of(result: WeightedSum, inputs: Sequence[Values]) -> bool:
    """Whether the parts of a sum are these very inputs, whole."""
    return len(result.parts) == len(inputs) and all(map(is_, result.parts, inputs))


def is_sum_of_stored(method: MergeMethod, tensor: Merge) -> bool:
    """Whether a planned tensor is a sum of inputs that lie in their files as the bfloat16 it is."""
    return (
        method.sums_inputs
        and tensor.output.dtype == "BF16"
        and all(isinstance(each, Stored) and each.dtype == "BF16" for each in tensor.sources)
    )


def sums_of_stored(
    results: Iterable[Values | WeightedSum],
    stored: Sequence[NDArray[np.uint16]],
    base: NDArray[np.uint16] | None,
    arithmetic: Arithmetic,
) -> tuple[list[NDArray[np.uint8]], bool]:
    """The bytes of sums of stored bfloat16 parts, shape (n,), each minus the base, plus the base.

    `results` are what a method with `sums_inputs` returned. Beside them whether all that is stored,
    and all that is made of it, is finite.
    """
    numbers = [result.numbers for result in results if isinstance(result, WeightedSum)]
    return arithmetic.rounded_sums_of_stored(stored, numbers, base)
