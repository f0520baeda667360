"""Counter-based random masks: the same bits for any block size, thread count, order or device.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the
BLAKE3 hash of (seed, tensor name, expert name); element i of a tensor takes the i-th 32-bit word
of that stream, low half of a 64-bit word first. On the CPU numpy's Philox makes the words, on other
devices the same rounds are written in torch; a test holds them equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops import kernels

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

WORDS_PER_STEP = 8  # 32-bit words that one value of the counter yields
RUN = 1 << 15  # elements drawn at once
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_MASK = (1 << 64) - 1


def stream_key(seed: int, tensor: str, expert: str) -> tuple[int, int]:
    """The 128-bit key of one expert's stream for one tensor, as two 64-bit halves."""
    text = f"{seed}\0{tensor}\0{expert}".encode()
    digest = blake3.blake3(text).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def keep_mask(
    key: tuple[int, int], start: int, count: int, density: float, device: torch.device
) -> torch.Tensor:
    """A float32 mask, shape (count,), of elements [start, start + count): 1 with chance `density`.

    The chance is `density` rounded to a multiple of 2⁻³². Floats, because multiplying by them is
    several times quicker than selecting by bools.
    """
    import torch

    threshold = _threshold(density)
    if device.type == "cpu":
        mask = np.empty(count, dtype=np.float32)
        for at in range(0, count, RUN):  # short runs stay in cache, and keep the heap from tearing
            words = _words_numpy(key, start + at, min(RUN, count - at))
            np.less(words, np.uint32(threshold), out=mask[at : at + RUN])
        return torch.as_tensor(mask)
    return (_words_torch(key, start, count, device) < threshold).to(torch.float32)


def keep(key: tuple[int, int], start: int, values: torch.Tensor, density: float) -> torch.Tensor:
    """Flat float32 `values` from element `start` on, times their `keep_mask`."""
    thresholds = np.array([_threshold(density)], dtype=np.uint32)
    kept = kernels.keep(key, start, values, None, thresholds)
    if kept is not None:
        return kept
    return keep_mask(key, start, values.numel(), density, values.device).mul_(values)


def keep_by_level(
    key: tuple[int, int],
    start: int,
    values: torch.Tensor,
    levels: torch.Tensor,
    chances: NDArray[np.float64],
) -> torch.Tensor:
    """Float32 `values` from element `start` on, times their `keep_mask_by_level`."""
    kept = kernels.keep(key, start, values, levels, _thresholds(chances))
    if kept is not None:
        return kept
    return keep_mask_by_level(key, start, levels, chances).mul_(values)


def _threshold(density: float) -> int:
    return min(round(density * 2**32), 2**32 - 1)


def _thresholds(chances: NDArray[np.float64]) -> NDArray[np.uint32]:
    return np.minimum(np.rint(chances * 2**32), 2**32 - 1).astype(np.uint32)


def keep_mask_by_level(
    key: tuple[int, int], start: int, levels: torch.Tensor, chances: NDArray[np.float64]
) -> torch.Tensor:
    """A float32 mask of `levels`' shape: an element of level k is 1 with chance `chances[k]`.

    `levels` are whole numbers for the elements from `start` on, in order. With one chance for all
    levels it is `keep_mask`.
    """
    import torch

    thresholds = _thresholds(chances)
    if levels.device.type != "cpu":
        table = torch.as_tensor(thresholds.astype(np.int64), device=levels.device)
        words = _words_torch(key, start, levels.numel(), levels.device).view(levels.shape)
        return (words < table[levels]).to(torch.float32)
    flat = levels.reshape(-1).numpy()
    mask = np.empty(len(flat), dtype=np.float32)
    for at in range(0, len(flat), RUN):
        wanted = thresholds[flat[at : at + RUN]]
        np.less(_words_numpy(key, start + at, len(wanted)), wanted, out=mask[at : at + RUN])
    return torch.as_tensor(mask).view(levels.shape)


def _words_numpy(key: tuple[int, int], start: int, count: int) -> NDArray[np.uint32]:
    first, skip = divmod(start, WORDS_PER_STEP)
    # numpy advances its counter before it draws: begin one step earlier (modulo 2^256).
    counter = (first - 1) % (1 << 256)
    philox = np.random.Philox(
        counter=np.array([(counter >> (64 * k)) & _MASK for k in range(4)], dtype=np.uint64),
        key=np.array(key, dtype=np.uint64),
    )
    draws = -(-(skip + count) // 2)
    # The full range hands out the raw words; unlike `random_raw` it lets other threads run.
    words = np.random.Generator(philox).integers(0, _MASK, draws, dtype=np.uint64, endpoint=True)
    return words.view(np.uint32)[skip : skip + count]


def _words_torch(
    key: tuple[int, int], start: int, count: int, device: torch.device
) -> torch.Tensor:
    """The same words as int64 values in [0, 2³²), computed on `device`."""
    import torch

    first, skip = divmod(start, WORDS_PER_STEP)
    steps = -(-(skip + count) // WORDS_PER_STEP)
    low = torch.arange(first, first + steps, dtype=torch.int64, device=device)
    zero = torch.zeros_like(low)
    x0, x1, x2, x3 = low, zero, zero.clone(), zero.clone()
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(x0, _MULTIPLIERS[0])
        high1, low1 = _multiply(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ _signed(k0), low1, high0 ^ x3 ^ _signed(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    words = torch.stack((x0, x1, x2, x3), dim=1).reshape(-1)
    halves = torch.stack((words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF), dim=1).reshape(-1)
    return halves[skip : skip + count]


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _multiply(value: torch.Tensor, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low 64 bits of an unsigned 64×64 product, in int64 with 32-bit halves."""
    mask = 0xFFFFFFFF
    a_low, a_high = value & mask, (value >> 32) & mask
    b_low, b_high = factor & mask, factor >> 32
    low = a_low * b_low
    middle = a_high * b_low + ((low >> 32) & mask)
    other = a_low * b_high + (middle & mask)
    high = a_high * b_high + ((middle >> 32) & mask) + ((other >> 32) & mask)
    return high, value * _signed(factor)
