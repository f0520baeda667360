"""A model's tensors aligned to its base while they are read; the alignment is found once."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    DigestOf,
    Fetch,
    RearrangedTensor,
    source_of,
)
from merge_ops.errors import CompatibilityError, Fault
from merge_ops.symmetries.aligning import VERSION, Alignment, align
from merge_ops.symmetries.anatomy import read_anatomy
from merge_ops.symmetries.symmetry import Symmetry, TransformedTensor

if TYPE_CHECKING:
    from torch import Tensor

NEAR = 0.5
"""‖model − base‖ / ‖base‖ after an alignment above which it did not succeed."""


@dataclass(eq=False)
class Aligner:
    """An aligner finds the symmetry that brings a model to its base, when it is first asked."""

    base: Checkpoint
    model: Checkpoint
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _found: Alignment | None = None

    def symmetry(self, fetch: Fetch) -> Symmetry:
        """Return the symmetry; without changes where the model is as near as it can be.

        Raises CompatibilityError where the model stays far from the base.
        """
        with self._lock:
            if self._found is None:
                self._found = align(self.base, self.model, fetch)
        found = self._found
        nearest = min(found.before, found.after)
        if nearest > NEAR:
            problem = (
                f"stays at ‖model − base‖ / ‖base‖ = {nearest:.2f} from {self.base.name} whatever"
                " order, sign and factor is undone: it has another origin, or was mixed by"
                " matrices that weights alone do not give away. Nothing was written"
            )
            raise CompatibilityError("align: base", [Fault(self.model.name, problem)])
        return found.symmetry if found.after < found.before else Symmetry({})


@dataclass(frozen=True, eq=False)
class AlignedTensor(RearrangedTensor):
    """An aligned tensor is a model's tensor as its aligner brings it to the base."""

    name: str
    aligner: Aligner

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return the digests of both models, which decide the alignment, and the tensor's own."""
        pair = [digest_of(self.aligner.base), digest_of(self.aligner.model)]
        return ["aligned", VERSION, *pair, self.own.identity(digest_of)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        change = self.aligner.symmetry(fetch).changes.get(self.name)
        source = self.own if change is None else TransformedTensor(self.own, change)
        source.fill(fetch, start, into)


def aligned(model: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return a model with every tensor aligned to a base; nothing is read before a tensor is.

    Raises CompatibilityError where one of them has no symmetries that are known here.
    """
    for each in (base, model):
        read_anatomy(each)
    aligner = Aligner(base, model)
    overlays = dict(model.overlays)
    for name in model.tensors:
        own = source_of(model, name)
        if own is not None:
            overlays[name] = AlignedTensor(own, name, aligner)
    return dataclasses.replace(model, overlays=overlays)
