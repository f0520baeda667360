"""What a result says of itself and of others: origins, licences, cards, whose model is in it."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.provenance import (
        ancestry,
        comparing,
        hub_card,
        inspecting,
        licences,
        markdown,
        merge_check,
        nameless_card,
        reproduction,
        upstream_card,
    )

__all__ = [
    "ancestry",
    "comparing",
    "hub_card",
    "inspecting",
    "licences",
    "markdown",
    "merge_check",
    "nameless_card",
    "reproduction",
    "upstream_card",
]
