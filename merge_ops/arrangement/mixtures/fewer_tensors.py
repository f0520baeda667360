"""Tensors of merged moe_experts, computed while they are read: means of matrices, and of rows.

Sums run in float64 and are rounded once, so that the mean of equal tensors is that tensor. Each
product is rounded before it is added (no fused multiply-add), so that bits are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, RearrangedTensor, Stored, TensorSource
from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.errors import Fault, StatisticsError

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.arrangement.mixtures.fewer_choice import Group


@dataclass(frozen=True)
class MeanTensor:
    """A mean tensor is the sum of tensors of one shape, each times its share."""

    members: tuple[TensorSource, ...]
    shares: tuple[float, ...]

    @property
    def model(self) -> str:
        """Return the name of the model whose tensors these are."""
        return self.members[0].model

    @property
    def dtype(self) -> str:
        """Return the dtype code, which all members have."""
        return self.members[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape, which all members have."""
        return self.members[0].shape

    @property
    def nbytes(self) -> int:
        """Return the bytes of all members."""
        return sum(each.nbytes for each in self.members)

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of all members."""
        return tuple(part for each in self.members for part in each.parts)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the shares, and what each member is made from."""
        return ["mean", list(self.shares), [each.identity(digest_of) for each in self.members]]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        import torch

        total = torch.zeros_like(into, dtype=torch.float64)
        for member, share in zip(self.members, self.shares, strict=True):
            member.fill(fetch, start, into)
            total.add_(into.double().mul_(share))
        into.copy_(total)


@dataclass(frozen=True)
class RouterRows(RearrangedTensor):
    """Router rows are means of rows of a router, (moe_experts, hidden): a row for each group.

    `measured_on` is the digest of the model whose statistics decided the groups. Another model is
    refused when its digest is known: its moe_experts do other things.
    """

    groups: tuple[Group, ...]
    measured_on: str
    statistics: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (groups, hidden)."""
        return (len(self.groups), *self.own.shape[1:])

    @property
    def nbytes(self) -> int:
        """Return the bytes of the rows that are read."""
        rows = sum(map(len, self.groups))
        return rows * prod(self.own.shape[1:]) * ITEM_SIZES[self.dtype]

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the router, and the rows with their shares.

        Raises StatisticsError where the statistics are of another model.
        """
        model = self.parts[0].checkpoint
        digest = digest_of(model)
        if digest is not None and digest != self.measured_on:
            problem = (
                f"were measured on a model with the digest {self.measured_on[:16]}…, and"
                f" '{model.name}' has {str(digest)[:16]}…; measure them on it by `ronghe"
                " moe-saliency` (the result of an earlier document: merge that into a folder first)"
            )
            raise StatisticsError(self.statistics, [Fault("the statistics", problem)])
        rows = [[list(member) for member in group] for group in self.groups]
        return ["router rows", rows, self.own.identity(digest_of)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        import torch

        for row, skipped, target in self._rows(start, into):
            total = torch.zeros_like(target, dtype=torch.float64)
            for member, share in self.groups[row]:
                self.own.fill(fetch, member * self.own.shape[1] + skipped, target)
                total.add_(target.double().mul_(share))
            target.copy_(total)

    def _rows(self, start: int, into: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """The rows that `into` lies in: each with the elements before it, and its part of it."""
        width, at = prod(self.own.shape[1:]), start
        while at < start + into.numel():
            row, skipped = divmod(at, width)
            count = min(width - skipped, start + into.numel() - at)
            yield row, skipped, into[at - start : at - start + count]
            at += count
