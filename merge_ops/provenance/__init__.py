"""What a result says of itself: where it comes from, its licences, the model card."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.provenance import (
        ancestry,
        hub_card,
        licences,
        markdown,
        model_card,
        nameless_card,
        reproduction,
        upstream_card,
    )

__all__ = [
    "ancestry",
    "hub_card",
    "licences",
    "markdown",
    "model_card",
    "nameless_card",
    "reproduction",
    "upstream_card",
]
