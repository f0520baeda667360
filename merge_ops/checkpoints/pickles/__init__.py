"""Weights that are pickled, as `.bin` files and distributed checkpoints have them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.checkpoints.pickles import pickled_weights

__all__ = ["pickled_weights"]
