"""Random masks by rank: in every row an entry's chance of being kept follows from its rank.

A mask is held as one bit for each entry: bytes of shape (rows, ⌈n / 8⌉), low bits first, as an
array, or on a GPU as a tensor there. Ranks are those of `row_ranks`, numbers those of
randomness.py. The loops in C find most decisions without ranks; they are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merge_ops.kernels import mask_loops as kernels_masks
from merge_ops.measures.randomness import keep_mask_by_level, thresholds
from merge_ops.measures.rows import absolute_row_sums, row_ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def bytes_of_masks(rows: int, length: int) -> int:
    """What the bits of so many rows take."""
    return rows * -(-length // 8)


def decide_by_rank(
    key: tuple[int, int], start: int, values: Tensor, chances: NDArray[np.float64]
) -> Any:
    """The bits of float32 rows, shape (rows, n), from element `start` of a tensor on.

    `chances`, shape (n,), are those of rank 0, the smallest magnitude, to n − 1; they do not fall.
    """
    decided = kernels_masks.decide_by_rank(key, start, values, thresholds(chances))
    if decided is not None:
        return decided
    mask = keep_mask_by_level(key, start, row_ranks(values), chances)
    if mask.device.type == "cpu":
        return np.packbits(mask.numpy() != 0, axis=1, bitorder="little")
    import torch

    bits = torch.nn.functional.pad(mask, (0, -mask.shape[1] % 8)).to(torch.uint8)
    places = torch.arange(8, device=mask.device, dtype=torch.uint8)
    return (bits.view(len(mask), -1, 8) << places).sum(dim=2, dtype=torch.uint8)


def keep_decided(values: Tensor, decided: Any, factor: float = 1.0) -> Tensor:
    """Float32 rows times their mask, times the factor."""
    kept = kernels_masks.apply_decided(values, decided, factor)
    if kept is not None:
        return kept
    import torch

    length = values.shape[1]
    if isinstance(decided, np.ndarray):
        bits = np.unpackbits(cast(Any, decided), axis=1, count=length, bitorder="little")
        mask = torch.as_tensor(bits.astype(np.float32))
    else:
        places = torch.arange(8, device=decided.device, dtype=torch.uint8)
        bits = (decided[:, :, None] >> places) & 1
        mask = bits.view(len(decided), -1)[:, :length].to(torch.float32)
    return mask.mul_(values).mul_(factor)


def decided_row_sums(values: Tensor, decided: Any) -> NDArray[np.float64]:
    """The sum of |kept entries| in every row, as `absolute_row_sums`."""
    sums = kernels_masks.decided_sums(values, decided)
    return absolute_row_sums(keep_decided(values, decided)) if sums is None else sums
