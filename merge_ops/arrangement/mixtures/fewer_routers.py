"""Routers of a mixture with fewer moe_experts: rows of its own, fitted ones, or none yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.arrangement.mixtures.fewer_tensors import RouterRows
from merge_ops.calibration.moe_statistics import MoeStatistics
from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, TensorSource
from merge_ops.recipes.structures.moe_fewer import CALIBRATE, FewerStep
from merge_ops.sources.missing_rows import MissingRows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from merge_ops.arrangement.mixtures.fewer_choice import Group

    Groups = tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class FittedRows(RouterRows):
    """Fitted rows are numbers that a plan holds, one for each group of a router of that model."""

    values: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Return 0: nothing is read."""
        return 0

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return what the rows are fitted from, and a digest of every number.

        Raises StatisticsError where the statistics are of another model.
        """
        numbers = np.ascontiguousarray(self.values, dtype="<f4").tobytes()
        return ["fitted rows", super().identity(digest_of), blake3.blake3(numbers).hexdigest()]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Copy elements [start, start + n) into `into`, flat float32 of n elements."""
        import torch

        numbers = self.values.reshape(-1)[start : start + into.numel()]
        into.copy_(torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32)))  # pyright: ignore[reportUnknownMemberType]


@dataclass(frozen=True)
class RouterNumbers:
    """What routers are made from: statistics of a model and fitted rows; None is not measured yet.

    `subject` names the recipe.
    """

    step: FewerStep
    statistics: MoeStatistics | None
    rows: Mapping[int, NDArray[np.float32]] | None
    subject: str

    def router(self, own: TensorSource, layer: int, groups: Groups) -> TensorSource:
        """Return what a layer's router `own` becomes, with a row for each group."""
        if self.statistics is None:
            return self._missing(
                own, groups, "texts", str(self.step.texts and self.step.texts.file)
            )
        measured = self.statistics.model, self.step.statistics or "moe.texts"
        if not self.step.calibrates:
            return RouterRows(own, groups, *measured)
        if self.rows is None:
            return self._missing(own, groups, "router", CALIBRATE)
        return FittedRows(own, groups, *measured, self.rows[layer])

    def _missing(self, own: TensorSource, groups: Groups, key: str, said: str) -> MissingRows:
        shape = (len(groups), *own.shape[1:])
        return MissingRows(own.model, own.dtype, shape, self.subject, f"moe.{key}", said)
