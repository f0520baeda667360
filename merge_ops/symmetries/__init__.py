"""Symmetries of a decoder: other weights of the same function, their keys, and their undoing.

A permutation of neurons and heads, a sign, or a power of two that one matrix gains and the next one
loses changes no answer. Such a change hides what weights have in common, and ruins their average.
"""

from typing import TYPE_CHECKING

from merge_ops.symmetries.anatomy import Anatomy, read_anatomy
from merge_ops.symmetries.symmetry import Symmetry, transformed

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.symmetries import aligning, keys

__all__ = ["Anatomy", "Symmetry", "aligning", "keys", "read_anatomy", "transformed"]
