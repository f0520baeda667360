"""What came out: scores with intervals, paired comparisons, gates, the leaderboard.

Read `SuiteScores` first. `compare` sets two of them against each other, item by item;
`gates.decide` says who becomes champion; `leaderboard.rows` makes the table, and
`known_comparisons` what of an earlier table still holds.
"""

from eval_ops.scores import gates, leaderboard
from eval_ops.scores.comparison import Comparison, compare
from eval_ops.scores.scores import Mean, Sample, Score, SuiteScores, scores_digest, summarize

__all__ = [
    "Comparison",
    "Mean",
    "Sample",
    "Score",
    "SuiteScores",
    "compare",
    "gates",
    "leaderboard",
    "scores_digest",
    "summarize",
]
