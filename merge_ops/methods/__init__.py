"""The merge methods. Importing this package registers them all."""

from merge_ops.methods import (
    breadcrumbs,
    dare,
    iso,
    karcher,
    linear,
    magmax,
    model_stock,
    nearswap,
    passthrough,
    ram,
    slerp,
    spheres,
    task_arithmetic,
    ties,
    tsvm,
    widen,
)
from merge_ops.methods.registry import METHODS, MergeMethod, method_named

__all__ = [
    "METHODS",
    "MergeMethod",
    "breadcrumbs",
    "dare",
    "iso",
    "karcher",
    "linear",
    "magmax",
    "method_named",
    "model_stock",
    "nearswap",
    "passthrough",
    "ram",
    "slerp",
    "spheres",
    "task_arithmetic",
    "ties",
    "tsvm",
    "widen",
]
