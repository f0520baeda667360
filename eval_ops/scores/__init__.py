"""What came out: scores with intervals, paired comparisons, gates, the leaderboard.

Read `SuiteScores` first. `compare` sets two of them against each other, item by item;
`gates.decide` says who becomes champion; `leaderboard.rows` makes the table, and
`known_comparisons` what of an earlier table still holds. `rounds` asks until the answers decide;
`power` says what a suite can show.
"""

from eval_ops.scores import gates, leaderboard, power, rounds
from eval_ops.scores.comparison import Comparison as Comparison
from eval_ops.scores.comparison import compare
from eval_ops.scores.scores import Mean as Mean
from eval_ops.scores.scores import Sample, Score, SuiteScores, scores_digest, summarize

__all__ = [
    "Sample",
    "Score",
    "SuiteScores",
    "compare",
    "gates",
    "leaderboard",
    "power",
    "rounds",
    "scores_digest",
    "summarize",
]
