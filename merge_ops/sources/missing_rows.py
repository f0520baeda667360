"""Rows of routers that are measured first: a plan of them can be shown, and not merged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, UnreadTensor
from merge_ops.errors import Fault, RecipeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MissingRows(UnreadTensor):
    """Missing rows stand for numbers that were not measured yet, (moe_experts, hidden).

    `where` is the key of the recipe `subject` that asks for them, and `is_said` what it says.
    """

    model: str
    dtype: str
    shape: tuple[int, ...]
    subject: str
    where: str
    is_said: str

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Raise RecipeError: nothing is known of the bits."""
        raise self._fault()

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Raise RecipeError: there is nothing to write."""
        raise self._fault()

    def _fault(self) -> RecipeError:
        problem = f"is {self.is_said!r}, and its numbers were not measured; `ronghe merge` and"
        return RecipeError(self.subject, [Fault(self.where, f"{problem} a catalog measure them")])
