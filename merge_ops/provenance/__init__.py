"""What a result says of itself and of others: cards, differences, whose model is in it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.provenance import (
        comparing,
        inspecting,
        markdown,
        merge_check,
        model_card,
        nameless_card,
        oddities,
    )

__all__ = [
    "comparing",
    "inspecting",
    "markdown",
    "merge_check",
    "model_card",
    "nameless_card",
    "oddities",
]
