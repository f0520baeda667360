"""What a merge computes with: one interface, and two implementations of it.

`Loops` (loops.py) runs the compiled loops in C on numpy arrays. `TorchArithmetic`
(torch_arithmetic.py) runs torch on any device, and on the CPU where no loops were compiled. The
stream chooses one for a run (stream/device.py) and hands it to the measures and methods. On the CPU
both give the same bits on every machine: every product and every sum is rounded once (no fused
multiply-add), and sums over elements go in a fixed order.

Values are float32, flat (n,) unless a method says otherwise. Both kinds know arithmetic operators
(also in place), `abs`, `reshape`, `shape`, `len` and slices; all else is a primitive here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import inf, prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Values: TypeAlias = "NDArray[np.float32] | Tensor"
    """Float32 values of one backend: an array on the CPU, or a tensor on its device."""

LANES = 64  # partial sums of a leaf: eight of the widest registers

Key = tuple[int, int]
"""The two halves of a random stream's key (measures/randomness.py)."""
Sum = tuple[Sequence[float], float, float]
"""(weights, divisor, scale) of one weighted sum."""


class Band(NamedTuple):
    """Which entries of a block count: low < |x| ≤ high; what counts is multiplied by the factor.

    Of the entries with |x| = low the first `low_ties` count too, of those with |x| = high the first
    `high_ties` do not.
    """

    low: float
    low_ties: int
    high: float = inf
    high_ties: int = 0
    factor: float = 1.0


NOTHING = Band(inf, 0)
"""The band in which no entry counts."""


class Bracketed(NamedTuple):
    """One block under a bracket [low, high]: magnitudes above it, at its ends, and inside.

    `inside` are the magnitudes themselves in order, shape (found,), on the host.
    """

    above: int
    at_high: int
    at_low: int
    inside: NDArray[np.float32]


def count_of(values: Values) -> int:
    """The number of elements, of any shape."""
    return prod(values.shape)


class Arithmetic(ABC):
    """The primitives that merges are made of. Inputs stay as they are unless a primitive says so.

    `kind` names what decides the bits: "cpu", or a kind of GPU.
    """

    kind: str = "cpu"

    # ---------------------------------------------------------------- values

    @abstractmethod
    def empty(self, shape: Sequence[int]) -> Values:
        """New values of this shape, with anything in them."""

    @abstractmethod
    def zeros_like(self, values: Values) -> Values:
        """New values of the same shape, all zero."""

    @abstractmethod
    def copy(self, values: Values) -> Values:
        """A contiguous copy of the same shape."""

    @abstractmethod
    def joined(self, parts: Sequence[Values]) -> Values:
        """Flat values, one behind the other, as new ones."""

    @abstractmethod
    def at_least(self, values: Values, bound: float) -> Values:
        """The bound replaces values below it, in their place; contiguous, of any shape."""

    @abstractmethod
    def at_most(self, values: Values, bound: float) -> Values:
        """The bound replaces values above it, in their place; contiguous, of any shape."""

    @abstractmethod
    def tensor(self, values: Values) -> Tensor:
        """The same values as a torch tensor of the same shape, which shares their memory."""

    def tensors(self, values: Sequence[Values]) -> list[Tensor]:
        """The values become tensors, each of its own shape, as by `tensor`."""
        return [self.tensor(part) for part in values]

    @abstractmethod
    def own(self, values: Values) -> Values:
        """What a method made becomes values here, of the same shape; memory may be shared."""

    @abstractmethod
    def on_host(self, values: Values) -> NDArray[np.float32]:
        """The values as an array on the host, of the same shape; what lies there is not copied."""

    @abstractmethod
    def from_host(self, array: NDArray[np.float32]) -> Values:
        """An array becomes values of the same shape; what may stay where it is is not copied."""

    # ---------------------------------------------------------------- in and out

    @abstractmethod
    def staging(self, nbytes: int) -> NDArray[np.uint8]:
        """Memory on the host that files are read into, shape (nbytes,)."""

    @abstractmethod
    def widen(
        self,
        stored: NDArray[np.uint8],
        code: str,
        base: Values | None,
        out: Values,
        checked: bool = True,
    ) -> bool:
        """`out` = flat bytes (of a safetensors dtype) as float32, minus `base` if given, both (n,).

        Returns whether all that is stored is finite; without `checked` it says True.
        """

    @abstractmethod
    def subtract(self, values: Values, base: Values | None, checked: bool = True) -> bool:
        """`values` -= `base` if given, both (n,); returns whether all were finite, as `widen`."""

    @abstractmethod
    def rounded(
        self, values: Values, base: Values | None, code: str
    ) -> tuple[NDArray[np.uint8], bool]:
        """`values` (plus `base`), both (n,), rounded once to a safetensors dtype, as flat bytes.

        Beside them whether these are finite. Values may be overwritten, and share their memory.
        """

    # ---------------------------------------------------------------- sums

    @abstractmethod
    def weighted_sum(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        weights: Sequence[float],
        divisor: float,
        scale: float,
    ) -> Values:
        """Σ wᵢ xᵢ / divisor · scale as new values; of a part with a band only that counts.

        Parts and result have one shape, (n,) if there are bands. Every product and every sum is
        rounded.
        """

    @abstractmethod
    def rounded_sums(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        sums: Sequence[Sum],
        base: Values | None,
    ) -> tuple[list[NDArray[np.uint8]], bool]:
        """Several `weighted_sum`s of the same parts, each `rounded` to bfloat16: bytes, (2 n,).

        Beside them whether all are finite. Parts have one shape of n elements, (n,) if there are
        bands; then there is one sum. `base` is (n,).
        """

    @abstractmethod
    def rounded_sums_of_stored(
        self,
        stored: Sequence[NDArray[np.uint16]],
        sums: Sequence[Sum],
        base: NDArray[np.uint16] | None,
    ) -> tuple[list[NDArray[np.uint8]], bool]:
        """`rounded_sums` of bfloat16 parts as they are stored, shape (n,), each minus the base.

        `base` is (n,) too, each result (2 n,). Beside them whether parts and results are finite.
        """

    @abstractmethod
    def disjoint_merge(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        scale: Sequence[float],
        gain: Sequence[float],
        share: Sequence[float],
        divide_by_at_least: float | None,
        lambda_: float,
    ) -> Values:
        """λ times the sum of those `parts[i] · scale[i]` that have their sum's sign, times `gain`.

        Of a part with a band only that counts. The sum is divided by the shares of those that agree
        unless `divide_by_at_least` is None; that is the smallest divisor, or where it is not
        positive, one takes the place of zero. Parts and the new result are (n,).
        """

    @abstractmethod
    def leaf_sums(self, values: Values, other: Values | None, leaf: int) -> NDArray[np.float64]:
        """Σ values · other, or Σ |values|, over leaves of so many elements, shape (leaves,).

        Products are float32, sums float64. On the CPU element i of a leaf goes to lane i mod 64,
        then the upper half of the lanes is added to the lower until one is left; on a GPU halves
        are added throughout. Inputs have one shape, and are taken flat.
        """

    # ---------------------------------------------------------------- elementary functions

    @abstractmethod
    def exponential(self, numbers: Tensor) -> Tensor:
        """eˣ of contiguous float64 of any shape, in their place; 0 below −700 (elementary.py)."""

    @abstractmethod
    def logarithm(self, numbers: Tensor) -> Tensor:
        """ln x of contiguous positive float64 of any shape, in their place."""

    @abstractmethod
    def hyperbolic_tangent(self, numbers: Tensor) -> Tensor:
        """tanh x of contiguous float64 of any shape, in their place."""

    # ---------------------------------------------------------------- thresholds

    @abstractmethod
    def keep_band(self, by: Values, band: Band, values: Values | None = None) -> Values:
        """`values`, or else `by`, where |by| is within the band, times its factor; 0 elsewhere.

        All shapes are (n,); the result is new.
        """

    @abstractmethod
    def under_brackets(
        self, values: Values, brackets: Sequence[tuple[float, float]]
    ) -> list[Bracketed]:
        """What |values|, shape (n,), are under every bracket (low, high), in one pass."""

    @abstractmethod
    def histogram(self, values: Values, bits: int, above: int | None) -> NDArray[np.int64]:
        """How many of |values|, shape (n,), have each number in the bits of their float32.

        Without `above` that is the number above the lowest `bits` bits, shape (2^(31 - bits),);
        with it the number in these, of those whose number above them is `above`: shape (2^bits,).
        """

    @abstractmethod
    def count_equal(self, values: Values, magnitude: float) -> int:
        """How many of |values|, shape (n,), are equal to a float32."""

    @abstractmethod
    def order_statistics(self, values: Values, places: Sequence[int]) -> list[float]:
        """What stands at these places of |values|, shape (n,), in ascending order."""

    # ---------------------------------------------------------------- across experts

    @abstractmethod
    def variance(self, parts: Sequence[Values]) -> tuple[Values, int]:
        """Parts, (n,), give the variance of every entry, (n,): in float64, rounded to float32.

        Beside it the number of entries where it is not zero.
        """

    @abstractmethod
    def pick_between(
        self, by: Values, low: float, high: float, parts: Sequence[Values]
    ) -> NDArray[np.float32]:
        """`by` and parts, (n,), where 0 ≤ low ≤ `by` ≤ high, in order: array (1 + parts, found)."""

    @abstractmethod
    def squares_above(
        self, parts: Sequence[Values], by: Values, above: float, leaf: int
    ) -> tuple[list[NDArray[np.float64]], int]:
        """For every part the `leaf_sums` of its squares where `by` > `above`; shapes (n,).

        Each result is (leaves,); beside them how many these entries are.
        """

    # ---------------------------------------------------------------- random masks and ranks

    @abstractmethod
    def keep_random(self, key: Key, start: int, values: Values, threshold: int) -> Values:
        """`values`, shape (n,), times 1 where an element's number is below the threshold, else 0.

        The numbers are those of elements from `start` on (measures/randomness.py). Result: (n,).
        """

    @abstractmethod
    def by_rank(self, table: NDArray[np.float32], values: Values) -> Values:
        """What `table`, (n,), has for each entry's rank in its row; `values` and result: (rows, n).

        Ranks are by magnitude: 0 for the smallest of a row; equals in the order of their index.
        """

    @abstractmethod
    def decide_by_rank(
        self, key: Key, start: int, values: Values, thresholds: NDArray[np.uint32]
    ) -> Any:
        """Whether each entry's number is below the threshold of its rank: one bit for each entry.

        Rows, shape (rows, n), from element `start` on; `thresholds`, shape (n,), do not fall. The
        bits are bytes of shape (rows, ⌈n / 8⌉), low ones first, where the values are.
        """

    @abstractmethod
    def apply_decided(self, values: Values, decided: Any, factor: float) -> Values:
        """`values`, shape (rows, n), times what was decided, times the factor: new values."""

    @abstractmethod
    def decided_sums(self, values: Values, decided: Any) -> NDArray[np.float64]:
        """Σ |values · decided| of every row, (rows, n) to (rows,), in the order of `leaf_sums`."""
