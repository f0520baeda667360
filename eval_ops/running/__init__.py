"""A model that runs: its weights are exchanged, its answers counted, its numbers repeatable."""

from eval_ops.running.answer_counter import Progress
from eval_ops.running.lean_model import make_lean
from eval_ops.running.live_model import LiveModel, Loaded
from eval_ops.running.pinning import pinned, set_threads
from eval_ops.running.served_model import make_served

__all__ = ["LiveModel", "Loaded", "Progress", "make_lean", "make_served", "pinned", "set_threads"]
