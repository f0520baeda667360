"""The merge methods. Importing this package registers them all."""

from merge_ops.methods import dare, linear, slerp, task_arithmetic, ties
from merge_ops.methods.registry import METHODS, MergeMethod, method_named

__all__ = [
    "METHODS",
    "MergeMethod",
    "dare",
    "linear",
    "method_named",
    "slerp",
    "task_arithmetic",
    "ties",
]
