"""What methods work on: float32 torch tensors, or numpy arrays where loops in C are all they need.

Arrays spare a merge the second it takes to import torch, and its memory. Tensors and arrays both
know arithmetic operators (also in place), `abs`, `reshape`, `shape`, `len` and slices; what they
call by different names is here. Type hints say Tensor for either.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def array_of(values: Tensor) -> NDArray[np.float32] | None:
    """The values if they are an array."""
    return cast(Any, values) if isinstance(values, np.ndarray) else None


def on_cpu(values: Tensor) -> NDArray[np.float32]:
    """The values as an array on the CPU; what lies there is not copied."""
    array = array_of(values)
    return cast("NDArray[np.float32]", values.cpu().numpy()) if array is None else array


def count_of(values: Tensor) -> int:
    """Number of elements."""
    return prod(values.shape)


def empty_like(values: Tensor, dtype: str = "float32") -> Tensor:
    """New ones of the same shape, with anything in them."""
    array = array_of(values)
    if array is not None:
        return cast(Any, np.empty_like(array, dtype=dtype))
    import torch

    return values.new_empty(values.shape, dtype=getattr(torch, dtype))


def zeros_like(values: Tensor) -> Tensor:
    """New ones of the same shape, all zero."""
    array = array_of(values)
    return values.new_zeros(values.shape) if array is None else cast(Any, np.zeros_like(array))


def copy_of(values: Tensor) -> Tensor:
    """A copy, contiguous."""
    array = array_of(values)
    return values.clone().contiguous() if array is None else cast(Any, array.copy())


def at_least(values: Tensor, bound: float) -> Tensor:
    """The values, in their place, with those below the bound raised to it."""
    array = array_of(values)
    if array is None:
        return values.clamp_min_(bound)
    return cast(Any, np.maximum(array, np.float32(bound), out=array))


def at_most(values: Tensor, bound: float) -> Tensor:
    """The values, in their place, with those above the bound lowered to it."""
    array = array_of(values)
    if array is None:
        return values.clamp_max_(bound)
    return cast(Any, np.minimum(array, np.float32(bound), out=array))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Flat values, one behind the other."""
    if array_of(parts[0]) is not None:
        return cast(Any, np.concatenate(cast(Any, parts)))
    import torch

    return torch.cat(list(parts))


def address(values: Tensor | NDArray[Any] | None) -> int | None:
    """Where the first element lies in memory."""
    if values is None:
        return None
    return values.ctypes.data if isinstance(values, np.ndarray) else values.data_ptr()
