"""What follows from all answers together: the names that other packages use.

`score_matrix` makes the matrix of a suite; `routing_table` says what routing would buy,
`retention` and `interference` what merges keep and break, `front` what nothing beats,
`mean_lengths` how much models write; `greedy_soup` and `category_soup` choose what to average,
`screen_of` what to ask first.
"""

from eval_ops.scores.matrices.matrix import ItemKey, ScoreMatrix, score_matrix
from eval_ops.scores.matrices.retention import (
    Interference,
    Retention,
    front,
    interference,
    mean_lengths,
    retention,
)
from eval_ops.scores.matrices.routing import RoutingTable, routing_table
from eval_ops.scores.matrices.screening import Screen, screen_of
from eval_ops.scores.matrices.soups import category_soup, greedy_soup

__all__ = [
    "Interference",
    "ItemKey",
    "Retention",
    "RoutingTable",
    "ScoreMatrix",
    "Screen",
    "category_soup",
    "front",
    "greedy_soup",
    "interference",
    "mean_lengths",
    "retention",
    "routing_table",
    "score_matrix",
    "screen_of",
]
