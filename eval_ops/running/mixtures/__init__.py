"""Mixtures of experts run layer by layer: gates of their routers, and what their moe_experts do."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from eval_ops.running.mixtures import gates, moe_saliency

__all__ = ["gates", "moe_saliency"]
