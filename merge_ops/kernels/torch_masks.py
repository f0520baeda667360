"""The part of TorchArithmetic that draws random masks, ranks rows, and has exp, log and tanh.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") in int64, which
every device has; measures/randomness.py says what its numbers decide.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from merge_ops.kernels import elementary
from merge_ops.kernels.arithmetic import Arithmetic, Key, count_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Values

UPPER, LOWER = 0, 1  # the streams
_WORDS_PER_STEP = 16  # 16-bit words that one value of the counter yields
_BITS = 16
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_MASK = (1 << 64) - 1
_PIECE = 1 << 14  # float64 numbers of which all that lies between stays in a core's cache


class MaskTorch(Arithmetic):
    """Masks and ranks by torch on one device; what `TorchArithmetic` builds on."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.kind = "cpu"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
            self.kind = f"cuda, {name}, torch {torch.__version__}"

    def tensor(self, values: Values) -> Tensor:
        """The result is a tensor of the same shape on the device; what is one there is returned."""
        return torch.as_tensor(values, device=self.device)

    def exponential(self, numbers: Tensor) -> Tensor:
        """eˣ takes the place of every x. Shapes as in `Arithmetic.exponential`."""
        return _by_pieces(elementary.exponential, numbers)

    def logarithm(self, numbers: Tensor) -> Tensor:
        """ln x takes the place of every x. Shapes as in `Arithmetic.logarithm`."""
        return _by_pieces(elementary.logarithm, numbers)

    def hyperbolic_tangent(self, numbers: Tensor) -> Tensor:
        """tanh x takes the place of every x. Shapes as in `Arithmetic.hyperbolic_tangent`."""
        return _by_pieces(elementary.hyperbolic_tangent, numbers)

    def keep_random(self, key: Key, start: int, values: Values, threshold: int) -> Tensor:
        """The random mask multiplies `values`. Shapes as in `Arithmetic.keep_random`."""
        tensor = self.tensor(values)
        wanted = torch.tensor(threshold, device=self.device).expand(len(tensor))
        return _below(key, start, wanted).mul_(tensor)

    def by_rank(self, table: NDArray[np.float32], values: Values) -> Tensor:
        """The table says what each entry gets for its rank. Shapes as in `Arithmetic.by_rank`."""
        return torch.as_tensor(table).to(self.device)[row_ranks(self.tensor(values))]

    def decide_by_rank(
        self, key: Key, start: int, values: Values, thresholds: NDArray[np.uint32]
    ) -> Tensor:
        """Each entry gets a bit, by its rank. Shapes as in `Arithmetic.decide_by_rank`."""
        rows = self.tensor(values)
        table = torch.as_tensor(thresholds.astype(np.int64)).to(self.device)
        mask = _below(key, start, table[row_ranks(rows)].view(-1)).view(rows.shape)
        bits = torch.nn.functional.pad(mask, (0, -rows.shape[1] % 8)).to(torch.uint8)
        places = torch.arange(8, device=self.device, dtype=torch.uint8)
        return (bits.view(len(bits), -1, 8) << places).sum(dim=2, dtype=torch.uint8)

    def apply_decided(self, values: Values, decided: Any, factor: float) -> Tensor:
        """`values`, shape (rows, n), times what was decided, times the factor: new values."""
        rows = self.tensor(values)
        places = torch.arange(8, device=self.device, dtype=torch.uint8)
        bits = (decided[:, :, None] >> places) & 1
        mask = bits.view(len(rows), -1)[:, : rows.shape[1]].to(torch.float32)
        return mask.mul_(rows).mul_(factor)

    def decided_sums(self, values: Values, decided: Any) -> NDArray[np.float64]:
        """The result is Σ |values · decided| of every row, (rows, n) to (rows,)."""
        kept = self.apply_decided(values, decided, 1.0)
        return self.leaf_sums(kept, None, kept.shape[1])


def _by_pieces(function: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
    """The function of contiguous numbers, in their place, a few at a time on the CPU."""
    size = _PIECE if numbers.device.type == "cpu" else max(1, numbers.numel())
    for piece in torch.split(numbers.view(-1), size):
        piece.copy_(function(piece))
    return numbers


def row_ranks(values: Tensor) -> Tensor:
    """By magnitude: 0 for the smallest of its row to n − 1 for the largest; equals in index order.

    Float32 (rows, n) to int64 of the same shape.
    """
    order = torch.argsort(values.abs(), dim=1, stable=True)
    places = torch.arange(values.shape[1], device=values.device)
    return torch.empty_like(order).scatter_(1, order, places.expand(order.shape))


def _below(key: Key, start: int, wanted: Tensor) -> Tensor:
    """1 where the number of an element from `start` on is below what is `wanted` of it, or 0.

    Int64 (n,) to new float32 (n,): multiplying by floats is several times quicker than choosing by
    bools.
    """
    words = words_of(key, UPPER, start, count_of(wanted), wanted.device)
    upper = wanted >> _BITS
    below = (words < upper).to(torch.float32)
    places = torch.nonzero(words == upper).flatten()
    if len(places):
        lower = _steps(key, LOWER, (places + start) // _WORDS_PER_STEP)
        drawn = lower.gather(1, ((places + start) % _WORDS_PER_STEP)[:, None])[:, 0]
        below[places] = (drawn < wanted[places] % (1 << _BITS)).to(torch.float32)
    return below


def words_of(key: Key, stream: int, start: int, count: int, device: torch.device) -> Tensor:
    """Words [start, start + count) of a stream, low ones first: int64 (count,) below 2¹⁶."""
    first, skip = divmod(start, _WORDS_PER_STEP)
    steps = -(-(skip + count) // _WORDS_PER_STEP)
    counters = torch.arange(first, first + steps, dtype=torch.int64, device=device)
    return _steps(key, stream, counters).view(-1)[skip : skip + count]


def _steps(key: Key, stream: int, counters: Tensor) -> Tensor:
    """The 16 words of every value of the counter, shape (n, 16), int64."""
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
    return torch.stack(parts, dim=2).view(len(counters), _WORDS_PER_STEP)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _multiply(value: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """High and low 64 bits of an unsigned 64×64 product, int64 (n,), by 32-bit halves."""
    mask = 0xFFFFFFFF
    a_low, a_high = value & mask, (value >> 32) & mask
    b_low, b_high = factor & mask, factor >> 32
    low = a_low * b_low
    middle = a_high * b_low + ((low >> 32) & mask)
    other = a_low * b_high + (middle & mask)
    high = a_high * b_high + ((middle >> 32) & mask) + ((other >> 32) & mask)
    return high, value * _signed(factor)
