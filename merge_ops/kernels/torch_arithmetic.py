"""TorchArithmetic: the arithmetic of a merge by torch, on any device.

It has the bits of the loops in C on the CPU: no operation here fuses a product with a sum (`add_`
with alpha, addcmul and the like do where the processor can), and none adds up elements in an order
that follows the width of its registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from merge_ops.kernels.arithmetic import LANES, Band, Bracketed, Sum
from merge_ops.kernels.torch_masks import MaskTorch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.kernels.arithmetic import Values

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TorchArithmetic(MaskTorch):
    """Torch on one device. Values are tensors there; what is on the host is an array."""

    def empty(self, shape: Sequence[int]) -> Tensor:
        """New values of this shape, with anything in them."""
        return torch.empty(tuple(shape), dtype=torch.float32, device=self.device)

    def zeros_like(self, values: Values) -> Tensor:
        """New values of the same shape, all zero."""
        return torch.zeros(tuple(values.shape), dtype=torch.float32, device=self.device)

    def copy(self, values: Values) -> Tensor:
        """A contiguous copy of the same shape."""
        return self.tensor(values).clone().contiguous()

    def joined(self, parts: Sequence[Values]) -> Tensor:
        """Flat values, one behind the other, as new ones."""
        return torch.cat(self.tensors(parts))

    def at_least(self, values: Values, bound: float) -> Tensor:
        """The bound replaces values below it, in their place; contiguous, of any shape."""
        return self.tensor(values).clamp_min_(bound)

    def at_most(self, values: Values, bound: float) -> Tensor:
        """The bound replaces values above it, in their place; contiguous, of any shape."""
        return self.tensor(values).clamp_max_(bound)

    def own(self, values: Values) -> Tensor:
        """The result is the values as a tensor of the same shape."""
        return self.tensor(values)

    def on_host(self, values: Values) -> NDArray[np.float32]:
        """The result is an array of the same shape; on the CPU it shares the values' memory."""
        return self.tensor(values).cpu().numpy()

    def from_host(self, array: NDArray[np.float32]) -> Tensor:
        """The result is a tensor of the same shape; on the CPU it shares the array's memory."""
        return torch.as_tensor(array).to(self.device)

    def staging(self, nbytes: int) -> NDArray[np.uint8]:
        """Memory that files are read into, (nbytes,); pinned where it goes on to a GPU."""
        pinned = self.device.type == "cuda"
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=pinned).numpy()

    def widen(
        self,
        stored: NDArray[np.uint8],
        code: str,
        base: Values | None,
        out: Values,
        checked: bool = True,
    ) -> bool:
        """Flat bytes less `base` become `out`, both (n,); returns whether the bytes are finite."""
        raw = torch.as_tensor(stored).view(_DTYPES[code])
        self.tensor(out).copy_(raw, non_blocking=True)
        return self.subtract(out, base, checked)

    def subtract(self, values: Values, base: Values | None, checked: bool = True) -> bool:
        """`base` is taken from `values`, both (n,); returns whether all values were finite."""
        tensor = self.tensor(values)
        # One cheap sum finds any NaN or infinity; only if it does is it worth looking at each.
        finite = not checked or bool(tensor.sum().isfinite())
        finite = finite or bool(tensor.isfinite().all())
        if base is not None:
            tensor -= self.tensor(base)
        return finite

    def rounded(
        self, values: Values, base: Values | None, code: str
    ) -> tuple[NDArray[np.uint8], bool]:
        """`values` (plus `base`), both (n,), become flat bytes; beside them if they are finite."""
        tensor = self.tensor(values).reshape(-1)
        if base is not None:
            tensor += self.tensor(base)
        rounded = tensor.to(_DTYPES[code]).contiguous()
        finite = bool(rounded.sum(dtype=torch.float32).isfinite()) or bool(rounded.isfinite().all())
        return cast("NDArray[np.uint8]", rounded.cpu().view(torch.uint8).numpy()), finite

    def weighted_sum(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        weights: Sequence[float],
        divisor: float,
        scale: float,
    ) -> Tensor:
        """A product is made, then added, so that both round; parts and result have one shape."""
        merged: Tensor | None = None
        for part, band, weight in zip(parts, bands, weights, strict=True):
            product = self._counting(part, band) * weight
            merged = product if merged is None else merged.add_(product)
        assert merged is not None
        if divisor != 1:
            merged.div_(divisor)
        return merged.mul_(scale) if scale != 1 else merged

    def _counting(self, part: Values, band: Band | None) -> Tensor:
        """What counts of a part: itself, or a copy with the rest set to zero."""
        return self.tensor(part) if band is None else self.keep_band(part, band)

    def rounded_sums(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        sums: Sequence[Sum],
        base: Values | None,
    ) -> tuple[list[NDArray[np.uint8]], bool]:
        """One sum after the other is made and rounded. Shapes as in `Arithmetic.rounded_sums`."""
        merged = (self.weighted_sum(parts, bands, *numbers) for numbers in sums)
        made = [self.rounded(each, base, "BF16") for each in merged]
        return [rounded for rounded, _ in made], all(finite for _, finite in made)

    def rounded_sums_of_stored(
        self,
        stored: Sequence[NDArray[np.uint16]],
        sums: Sequence[Sum],
        base: NDArray[np.uint16] | None,
    ) -> tuple[list[NDArray[np.uint8]], bool]:
        """Stored bfloat16, (n,), is made float32 first; each result is bytes, (2 n,)."""
        finite, origin = True, None
        if base is not None:
            origin = self.empty(base.shape)
            finite = self.widen(base.view(np.uint8), "BF16", None, origin)
        parts: list[Values] = []
        for bits in stored:
            parts.append(self.empty(bits.shape))
            finite &= self.widen(bits.view(np.uint8), "BF16", origin, parts[-1])
        rounded, sound = self.rounded_sums(parts, [None] * len(parts), sums, origin)
        return rounded, finite and sound

    def disjoint_merge(
        self,
        parts: Sequence[Values],
        bands: Sequence[Band | None],
        scale: Sequence[float],
        gain: Sequence[float],
        share: Sequence[float],
        divide_by_at_least: float | None,
        lambda_: float,
    ) -> Tensor:
        """Scaled parts elect a sign, and those that agree are added; parts and result are (n,)."""
        scaled = [
            counting if factor == 1 else counting * factor
            for counting, factor in zip(map(self._counting, parts, bands), scale, strict=True)
        ]
        elected = elected_sign(scaled)
        merged, divisor = torch.zeros_like(elected), torch.zeros_like(elected)
        for part, factor, weight in zip(scaled, gain, share, strict=True):
            agreeing = (part * elected).clamp_min_(0)
            merged.add_(agreeing * factor)
            if divide_by_at_least is not None:
                divisor.add_(agreeing.sign_().mul_(weight))
        if divide_by_at_least is not None:
            # Where nobody agrees the sum is zero and any divisor serves; a clamp is the quick way.
            merged.div_(
                divisor.clamp_min_(divide_by_at_least)
                if divide_by_at_least > 0
                else divisor.masked_fill_(divisor == 0, 1)
            )
        merged.mul_(elected)
        return merged.mul_(lambda_) if lambda_ != 1 else merged

    def leaf_sums(self, values: Values, other: Values | None, leaf: int) -> NDArray[np.float64]:
        """Every leaf is added by lanes, then by halves. Shapes as in `Arithmetic.leaf_sums`."""
        tensor = self.tensor(values).reshape(-1)
        products = tensor.abs() if other is None else tensor * self.tensor(other).reshape(-1)
        whole = len(products) // leaf * leaf
        parts = [_sums_of_rows(products[:whole].view(-1, leaf))] if whole else []
        if whole < len(products):
            parts.append(_sums_of_rows(products[whole:].view(1, -1)))
        return np.concatenate(parts) if parts else np.empty(0)

    def keep_band(self, by: Values, band: Band, values: Values | None = None) -> Tensor:
        """`values`, or else `by`, are kept where |by| is within the band, else 0; all are (n,)."""
        measured = self.tensor(by)
        source = measured if values is None else self.tensor(values)
        magnitude = measured.abs()
        counts = magnitude > band.low
        if band.high < np.inf:
            counts &= magnitude <= band.high
        if band.low_ties >= len(measured):
            counts |= magnitude == band.low
        elif band.low_ties:
            counts[torch.nonzero(magnitude == band.low).flatten()[: band.low_ties]] = True
        if band.high_ties:
            counts[torch.nonzero(magnitude == band.high).flatten()[: band.high_ties]] = False
        kept = torch.where(counts, source, source.new_zeros(()))
        return kept if band.factor == 1 else kept.mul_(band.factor)

    def under_brackets(
        self, values: Values, brackets: Sequence[tuple[float, float]]
    ) -> list[Bracketed]:
        """|values|, (n,), are counted for every bracket; only those inside leave the device."""
        magnitude = self.tensor(values).abs()
        seen: list[Bracketed] = []
        for low, high in brackets:
            near = magnitude[(magnitude >= low) & (magnitude <= high)]
            at_high, at_low = near == high, (near == low) & (low < high)
            counts = torch.stack([(magnitude > high).sum(), at_high.sum(), at_low.sum()])
            above, equal_high, equal_low = map(int, counts.cpu())
            inside = near[~(at_high | at_low)].cpu().numpy()
            seen.append(Bracketed(above, equal_high, equal_low, inside))
        return seen

    def histogram(self, values: Values, bits: int, above: int | None) -> NDArray[np.int64]:
        """Numbers in the bits of |values| are counted. Shapes as in `Arithmetic.histogram`."""
        numbers = self.tensor(values).abs().view(torch.int32)
        upper = numbers >> bits
        if above is None:
            counts = torch.bincount(upper, minlength=1 << (31 - bits))
        else:
            lowest = numbers[upper == above] & ((1 << bits) - 1)
            counts = torch.bincount(lowest, minlength=1 << bits)
        return counts.cpu().numpy()

    def count_equal(self, values: Values, magnitude: float) -> int:
        """The result is how many of |values|, shape (n,), are equal to a float32."""
        return int((self.tensor(values).abs() == magnitude).sum())

    def order_statistics(self, values: Values, places: Sequence[int]) -> list[float]:
        """The result is what stands at these places of |values|, (n,), in ascending order."""
        magnitudes = self.tensor(values).abs()
        return [float(torch.kthvalue(magnitudes, place + 1).values) for place in places]

    def variance(self, parts: Sequence[Values]) -> tuple[Tensor, int]:
        """Parts, (n,), give the variance of every entry, (n,), and how many are not zero."""
        tensors = self.tensors(parts)
        spread = torch.empty_like(tensors[0])
        for start in range(0, len(spread), _PIECE):
            pieces = [each[start : start + _PIECE].double() for each in tensors]
            mean = pieces[0].clone()
            for piece in pieces[1:]:
                mean.add_(piece)
            mean.div_(len(pieces))
            squares = torch.zeros_like(mean)
            for piece in pieces:
                squares.add_(piece.sub_(mean).square_())
            spread[start : start + _PIECE] = squares.div_(len(pieces))
        return spread, int(torch.count_nonzero(spread))

    def pick_between(
        self, by: Values, low: float, high: float, parts: Sequence[Values]
    ) -> NDArray[np.float32]:
        """Of `by` and parts, (n,), only what is in range leaves the device: (1 + parts, found)."""
        measured = self.tensor(by)
        places = torch.nonzero((measured >= low) & (measured <= high)).flatten()
        picked = torch.stack([each[places] for each in (measured, *self.tensors(parts))])
        return picked.cpu().numpy()

    def squares_above(
        self, parts: Sequence[Values], by: Values, above: float, leaf: int
    ) -> tuple[list[NDArray[np.float64]], int]:
        """Squares where `by` is larger are added. Shapes as in `Arithmetic.squares_above`."""
        larger = self.tensor(by) > above
        kept = [part * larger for part in self.tensors(parts)]
        return [self.leaf_sums(part, part, leaf) for part in kept], int(larger.sum())


_PIECE = 1 << 16  # elements of float64 that stay in a core's cache: five times as fast


def elected_sign(parts: Sequence[Tensor]) -> Tensor:
    """The sign of Σ partᵢ, entry by entry, as +1 and −1; plus where the sum is zero.

    Tensors of equal shapes; the sign is a new one of that shape.
    """
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0]
    for part in parts[2:]:
        total.add_(part)
    # A sum is −0 only where every part is zero, and there the sign does not matter.
    return torch.copysign(total.new_ones(()), total)


def _sums_of_rows(rows: Tensor) -> NDArray[np.float64]:
    """The sum of every row, shape (rows, n), in float64, shape (rows,).

    On the CPU by lanes as the loops in C do; on a GPU, where a sum one after the other would take
    as many launches, halves of the row are added until lanes are left.
    """
    length = rows.shape[1]
    steps = -(-length // LANES)
    padded = torch.zeros(rows.shape[0], steps * LANES, dtype=torch.float64, device=rows.device)
    padded[:, :length] = rows
    if rows.device.type == "cpu":
        folded = np.add.reduce(padded.numpy().reshape(-1, steps, LANES), axis=1)
    else:
        folded = sums_by_halves(padded.view(-1, steps, LANES)).cpu().numpy()
    while (half := folded.shape[1] // 2) > 0:
        folded = folded[:, :half] + folded[:, half:]
    return folded[:, 0]


def sums_by_halves(values: Tensor) -> Tensor:
    """Sums over the middle dimension of float64 (rows, n, lanes), shape (rows, lanes).

    The upper half is added to the lower until one is left: an order that follows from n alone.
    """
    while (length := values.shape[1]) > 1:
        half = (length + 1) // 2
        lower = values[:, :half].clone()
        lower[:, : length - half].add_(values[:, half:])
        values = lower
    return values[:, 0]
