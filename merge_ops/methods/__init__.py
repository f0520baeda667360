"""The merge methods. Importing this package registers them all."""

# pyright: reportUnusedImport=false

from merge_ops.methods import (  # noqa: F401, each registers its methods
    arcee_fusion,
    blockmerge,
    breadcrumbs,
    consensus,
    dare,
    della,
    emr,
    expo,
    iso,
    karcher,
    linear,
    magmax,
    model_stock,
    nearswap,
    nuslerp,
    passthrough,
    pcb,
    ram,
    sce,
    slerp,
    spheres,
    task_arithmetic,
    ties,
    tsvm,
    widen,
)
from merge_ops.methods.registry import METHODS, MergeMethod, method_named

__all__ = ["METHODS", "MergeMethod", "method_named"]
