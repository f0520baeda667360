"""Counter-based random masks: the same bits for any block size, thread count, order or device.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the
BLAKE3 hash of (seed, tensor name, expert name). An element's number has 32 bits: the upper half is
the i-th 16-bit word of the key's stream 0, the lower half that of stream 1 (the second word of the
counter), low words first. It is kept where that number is below its chance. The lower half is drawn
only where the upper one does not decide, for one element in 65,536: so a mask costs 16 bits an
element. Both arithmetics draw them (kernels_masks.c, torch_masks.py); tests hold them equal, and
equal to numpy's Philox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import blake3
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.kernels.arithmetic import Key


def stream_key(seed: int, tensor: str, expert: str) -> Key:
    """The 128-bit key of one expert's streams for one tensor, as two 64-bit halves."""
    text = f"{seed}\0{tensor}\0{expert}".encode()
    digest = blake3.blake3(text).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def thresholds(chances: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The numbers below which an element is kept, shape (n,), for every chance, shape (n,).

    A chance is rounded to a multiple of 2⁻³².
    """
    return np.minimum(np.rint(chances * 2**32), 2**32 - 1).astype(np.uint32)


def threshold_of(chance: float) -> int:
    """The number below which an element is kept, for one chance."""
    return int(thresholds(np.array([chance]))[0])
