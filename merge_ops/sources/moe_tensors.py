"""What a mixture of experts has beside copies: rows of gates, drawn gates, noise and scales.

Normal numbers are drawn by counter (Philox4x64 and Box-Muller on elementary functions that have the
same bits everywhere), so that each element is the same for every way to cut a tensor in blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.checkpoints.checkpoint import (
    DigestOf,
    Fetch,
    Numbers,
    RearrangedTensor,
    UnreadTensor,
)
from merge_ops.kernels.elementary import logarithm, sines_and_cosines
from merge_ops.measures.randomness import stream_key

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

PIECE = 1 << 20
"""Numbers drawn at a time; they take some dozens of bytes each."""
_WORDS = 4  # of 64 bits, for each count of Philox


@dataclass(frozen=True, eq=False)
class GivenRows(Numbers):
    """Given rows are numbers that a plan holds: measured gates, (moe_experts, hidden)."""

    model: str
    dtype: str
    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the numbers."""
        return self.values.shape

    @cached_property
    def _digest(self) -> str:
        return blake3.blake3(np.ascontiguousarray(self.values, dtype="<f4").tobytes()).hexdigest()

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return a digest that covers every number."""
        return ["gates", list(self.shape), self._digest]

    def numbers(self, start: int, count: int) -> NDArray[np.float32]:
        """Return elements [start, start + count), shape (count,)."""
        return np.array(self.values.reshape(-1)[start : start + count])


@dataclass(frozen=True)
class DrawnRows(UnreadTensor):
    """Drawn rows are normal with deviation 1, or uniform within ±1/√columns."""

    model: str
    dtype: str
    shape: tuple[int, ...]
    name: str
    seed: int
    uniform: bool

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return what the numbers are drawn from."""
        return ["drawn gates", self.name, self.seed, self.uniform, list(self.shape)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Draw elements [start, start + n) into `into`, flat float32 of n elements."""
        bound = 1.0 / math.sqrt(self.shape[-1])
        for at in range(0, into.numel(), PIECE):
            count = min(PIECE, into.numel() - at)
            if self.uniform:
                shares = _words(self.seed, self.name, "gates", start + at, count) * 2.0**-64
                drawn = (shares * 2.0 - 1.0) * bound
            else:
                drawn = normal_numbers(self.seed, self.name, "gates", start + at, count)
            _put(drawn.astype(np.float32), into[at : at + count])


@dataclass(frozen=True)
class ChangedTensor(RearrangedTensor):
    """A changed tensor is (own + noise · N(0, 1)) · scale, given as the dtype `given`."""

    given: str
    name: str
    noise: float = 0.0
    scale: float = 1.0
    seed: int = 0

    @property
    def dtype(self) -> str:
        """Return the dtype code that it is given as."""
        return self.given

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the model's own tensor, the numbers, and what the noise is drawn from."""
        drawn = [self.name, self.seed] if self.noise else []
        return ["changed", self.own.identity(digest_of), self.noise, self.scale, self.dtype, drawn]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the changed elements from `start` on."""
        self.own.fill(fetch, start, into)
        if self.noise:
            import torch

            for at in range(0, into.numel(), PIECE):
                count = min(PIECE, into.numel() - at)
                drawn = normal_numbers(self.seed, self.name, "noise", start + at, count)
                noise = torch.from_numpy((drawn * self.noise).astype(np.float32))  # pyright: ignore[reportUnknownMemberType]
                into[at : at + count].add_(noise.to(into.device))
        if self.scale != 1.0:
            into.mul_(self.scale)


def normal_numbers(seed: int, name: str, what: str, start: int, count: int) -> NDArray[np.float64]:
    """Return elements [start, start + count) of a tensor's normal numbers, shape (count,).

    Element i is made of word i of the stream: its upper half gives the length, its lower half the
    angle of a pair, of which the first is taken.
    """
    import torch

    words = _words(seed, name, what, start, count)
    upper = (words >> np.uint64(32)).astype(np.float64)
    lower = (words & np.uint64(0xFFFFFFFF)).astype(np.float64)
    shares = torch.from_numpy((upper + 0.5) * 2.0**-32)  # pyright: ignore[reportUnknownMemberType]
    lengths = np.sqrt(-2.0 * logarithm(shares).numpy())
    return lengths * sines_and_cosines(lower * (2.0 * math.pi * 2.0**-32))[1]


def _words(seed: int, name: str, what: str, start: int, count: int) -> NDArray[np.uint64]:
    """Words [start, start + count) of the stream of a tensor."""
    low, high = stream_key(seed, name, what)
    first = start // _WORDS
    stream = np.random.Philox(key=low | high << 64, counter=first)
    skipped = start - first * _WORDS
    return stream.random_raw(skipped + count)[skipped:]


def _put(values: NDArray[np.float32], into: Tensor) -> None:
    import torch

    into.copy_(torch.from_numpy(np.array(values)))  # pyright: ignore[reportUnknownMemberType]
