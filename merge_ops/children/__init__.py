"""Work of foreign code is done by limited children: pickles, and models that are built and run."""

from merge_ops.children.closing import ClosedAtEnd
from merge_ops.children.kept_models import (
    ask_for_tokens,
    ask_of_model,
    model_child,
    shares_memory,
)
from merge_ops.children.limited_child import LimitedChild
from merge_ops.children.memory_folder import MemoryFolder
from merge_ops.children.own_folders import OwnFolder

__all__ = [
    "ClosedAtEnd",
    "LimitedChild",
    "MemoryFolder",
    "OwnFolder",
    "ask_for_tokens",
    "ask_of_model",
    "model_child",
    "shares_memory",
]
