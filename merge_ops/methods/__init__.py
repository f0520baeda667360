"""The merge methods. Importing this package registers them all."""

from merge_ops.methods import (
    arcee_fusion,
    breadcrumbs,
    dare,
    della,
    karcher,
    linear,
    magmax,
    model_stock,
    nearswap,
    nuslerp,
    passthrough,
    ram,
    slerp,
    spheres,
    task_arithmetic,
    ties,
)
from merge_ops.methods.registry import METHODS, MergeMethod, method_named

__all__ = [
    "METHODS",
    "MergeMethod",
    "arcee_fusion",
    "breadcrumbs",
    "dare",
    "della",
    "karcher",
    "linear",
    "magmax",
    "method_named",
    "model_stock",
    "nearswap",
    "nuslerp",
    "passthrough",
    "ram",
    "slerp",
    "spheres",
    "task_arithmetic",
    "ties",
]
