"""Counter-based random masks: the same bits for any block size, thread count, order or device.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The key is the
BLAKE3 hash of (seed, tensor name, expert name). An element's number has 32 bits: the upper half is
the i-th 16-bit word of the key's stream 0, the lower half that of stream 1 (the second word of the
counter), low words first. It is kept where that number is below its chance. The lower half is drawn
only where the upper one does not decide, for one element in 65,536: so a mask costs 16 bits an
element. kernels_masks.c draws them; numpy's Philox and, on other devices, the same rounds in torch
do where it cannot. Tests hold them equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.kernels import mask_loops as kernels_masks

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

WORDS_PER_STEP = 16  # 16-bit words that one value of the counter yields
RUN = 1 << 15  # elements drawn at once
UPPER, LOWER = 0, 1  # the streams
_BITS = 16
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_MASK = (1 << 64) - 1


def stream_key(seed: int, tensor: str, expert: str) -> tuple[int, int]:
    """The 128-bit key of one expert's streams for one tensor, as two 64-bit halves."""
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

    threshold = thresholds(np.array([density]))
    if device.type != "cpu":
        wanted = torch.as_tensor(threshold.astype(np.int64), device=device)
        return _below_torch(key, start, count, wanted.expand(count))
    mask = np.empty(count, dtype=np.float32)
    for at in range(0, count, RUN):  # short runs stay in cache, and keep the heap from tearing
        length = min(RUN, count - at)
        _below_numpy(key, start + at, np.broadcast_to(threshold, length), mask[at : at + length])
    return torch.as_tensor(mask)


def keep_mask_by_level(
    key: tuple[int, int], start: int, levels: torch.Tensor, chances: NDArray[np.float64]
) -> torch.Tensor:
    """A float32 mask of `levels`' shape: an element of level k is 1 with chance `chances[k]`.

    `levels` are whole numbers for the elements from `start` on, in order. With one chance for all
    levels it is `keep_mask`.
    """
    import torch

    by_level = thresholds(chances)
    if levels.device.type != "cpu":
        table = torch.as_tensor(by_level.astype(np.int64), device=levels.device)
        wanted = table[levels.reshape(-1)]
        return _below_torch(key, start, levels.numel(), wanted).view(levels.shape)
    flat = levels.reshape(-1).numpy()
    mask = np.empty(len(flat), dtype=np.float32)
    for at in range(0, len(flat), RUN):
        wanted = by_level[flat[at : at + RUN]]
        _below_numpy(key, start + at, wanted, mask[at : at + RUN])
    return torch.as_tensor(mask).view(levels.shape)


def keep(key: tuple[int, int], start: int, values: torch.Tensor, density: float) -> torch.Tensor:
    """Flat float32 `values` from element `start` on, times their `keep_mask`."""
    kept = kernels_masks.keep(key, start, values, int(thresholds(np.array([density]))[0]))
    if kept is not None:
        return kept
    return keep_mask(key, start, values.numel(), density, values.device).mul_(values)


def thresholds(chances: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The numbers below which an element is kept, for every chance."""
    return np.minimum(np.rint(chances * 2**32), 2**32 - 1).astype(np.uint32)


def _below_numpy(
    key: tuple[int, int], start: int, wanted: NDArray[np.uint32], out: NDArray[np.float32]
) -> None:
    """Into `out` 1 where the number of an element from `start` on is below its threshold, or 0."""
    words = _words_numpy(key, UPPER, start, len(out))
    upper = (wanted >> np.uint32(_BITS)).astype(np.uint16)
    np.less(words, upper, out=out)
    for place in np.flatnonzero(words == upper).tolist():
        lower = int(_words_numpy(key, LOWER, start + place, 1)[0])
        out[place] = lower < int(wanted[place]) % (1 << _BITS)


def _words_numpy(key: tuple[int, int], stream: int, start: int, count: int) -> NDArray[np.uint16]:
    first, skip = divmod(start, WORDS_PER_STEP)
    # numpy advances its counter before it draws: begin one step earlier (modulo 2^256).
    counter = ((stream << 64 | first) - 1) % (1 << 256)
    philox = np.random.Philox(
        counter=np.array([(counter >> (64 * k)) & _MASK for k in range(4)], dtype=np.uint64),
        key=np.array(key, dtype=np.uint64),
    )
    draws = -(-(skip + count) // 4)
    # The full range hands out the raw words; unlike `random_raw` it lets other threads run.
    words = np.random.Generator(philox).integers(0, _MASK, draws, dtype=np.uint64, endpoint=True)
    return words.view(np.uint16)[skip : skip + count]


def _below_torch(
    key: tuple[int, int], start: int, count: int, wanted: torch.Tensor
) -> torch.Tensor:
    """As `_below_numpy`, on the device of the int64 `wanted`, shape (count,); a new tensor."""
    import torch

    words = _words_torch(key, UPPER, start, count, wanted.device)
    upper = wanted >> _BITS
    below = (words < upper).to(torch.float32)
    places = torch.nonzero(words == upper).flatten()
    if len(places):
        steps = (places + start) // WORDS_PER_STEP
        lower = _steps_torch(key, LOWER, steps)
        drawn = lower.gather(1, ((places + start) % WORDS_PER_STEP)[:, None])[:, 0]
        below[places] = (drawn < wanted[places] % (1 << _BITS)).to(torch.float32)
    return below


def _words_torch(
    key: tuple[int, int], stream: int, start: int, count: int, device: torch.device
) -> torch.Tensor:
    """The same words as int64 values in [0, 2¹⁶), computed on `device`."""
    import torch

    first, skip = divmod(start, WORDS_PER_STEP)
    steps = -(-(skip + count) // WORDS_PER_STEP)
    counters = torch.arange(first, first + steps, dtype=torch.int64, device=device)
    return _steps_torch(key, stream, counters).view(-1)[skip : skip + count]


def _steps_torch(key: tuple[int, int], stream: int, counters: torch.Tensor) -> torch.Tensor:
    """The 16 words of every value of the counter, shape (n, 16), int64."""
    import torch

    zero = torch.zeros_like(counters)
    x0, x1, x2, x3 = counters, zero + stream, zero, zero.clone()
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(x0, _MULTIPLIERS[0])
        high1, low1 = _multiply(x2, _MULTIPLIERS[1])
        x0, x1, x2, x3 = high1 ^ x1 ^ _signed(k0), low1, high0 ^ x3 ^ _signed(k1), low0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    whole = torch.stack((x0, x1, x2, x3), dim=1)
    parts = [(whole >> shift) & 0xFFFF for shift in range(0, 64, _BITS)]
    return torch.stack(parts, dim=2).view(len(counters), WORDS_PER_STEP)


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
