"""What a tensor of a model is made of, behind one read.

Most tensors lie in a file as they are (`Stored`). Others are computed block by block while they are
read: a LoRA product, rows gathered for a merged vocabulary. A merge method sees no difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from merge_ops.checkpoints.header import TensorEntry

if TYPE_CHECKING:
    from torch import Tensor

    from merge_ops.checkpoints.checkpoint import Checkpoint

Fetch = Callable[["Stored", int, int], "Tensor"]
"""(stored, start, count) → those elements, flat, as float32 on the stream's device."""


class TensorSource(Protocol):
    """One tensor of one model. `fill` must give the same bits for every way to cut it in blocks."""

    @property
    def model(self) -> str:
        """Name of the model, for messages and random streams."""
        ...

    @property
    def dtype(self) -> str:
        """Its safetensors dtype code."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes read to have all of it once."""
        ...

    @property
    def parts(self) -> tuple[Stored, ...]:
        """The stored tensors it is made of."""
        ...

    @property
    def identity(self) -> list[object]:
        """Plain data that decides every bit: digests, names, numbers."""
        ...

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Write elements [start, start + n) to `into`, flat float32 of n elements."""
        ...


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file of a checkpoint."""

    checkpoint: Checkpoint
    name: str
    entry: TensorEntry

    @property
    def model(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.name

    @property
    def dtype(self) -> str:
        """As stored."""
        return self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.entry.shape

    @property
    def nbytes(self) -> int:
        """Its bytes in the file."""
        return self.entry.nbytes

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Itself."""
        return (self,)

    @property
    def identity(self) -> list[object]:
        """The checkpoint's digest and the tensor's name."""
        return [self.checkpoint.digest, self.name]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Read it."""
        into.copy_(fetch(self, start, into.numel()))
