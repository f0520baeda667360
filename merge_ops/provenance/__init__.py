"""What a result says of itself: the model card."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.provenance import markdown, model_card, nameless_card

__all__ = ["markdown", "model_card", "nameless_card"]
