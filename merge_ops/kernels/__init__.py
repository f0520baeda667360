"""The innermost loops in C, their build, and what merges compute with."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.kernels import compile, library

__all__ = ["compile", "library"]
