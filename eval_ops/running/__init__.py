"""A model that runs: its weights are exchanged, its answers counted, its numbers repeatable."""

from typing import TYPE_CHECKING

from eval_ops.running.answer_counter import Progress
from eval_ops.running.asked_tokenizer import AskedTokenizer
from eval_ops.running.lean_model import make_lean
from eval_ops.running.live_model import LiveModel, Loaded
from eval_ops.running.served_model import make_served
from eval_ops.running.watched_model import make_watched

if TYPE_CHECKING:  # a module, imported when it is asked for
    from eval_ops.running import gates, moe_saliency

__all__ = [
    "AskedTokenizer",
    "LiveModel",
    "Loaded",
    "Progress",
    "gates",
    "make_lean",
    "make_served",
    "make_watched",
    "moe_saliency",
]
