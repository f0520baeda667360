"""A model that runs: its weights are exchanged, its answers counted, its numbers repeatable."""

from eval_ops.running.answer_counter import Progress
from eval_ops.running.asked_tokenizer import AskedTokenizer
from eval_ops.running.lean_model import make_lean
from eval_ops.running.live_model import LiveModel, Loaded
from eval_ops.running.served_model import make_served
from eval_ops.running.watched_model import make_watched

__all__ = [
    "AskedTokenizer",
    "LiveModel",
    "Loaded",
    "Progress",
    "make_lean",
    "make_served",
    "make_watched",
]
