"""What came out: scores with intervals, paired comparisons, gates, the leaderboard.

Read `SuiteScores` first. `compare` sets two of them against each other, item by item;
`gates.decide` says who becomes champion; `leaderboard.rows` makes the table, and
`known_comparisons` what of an earlier table still holds. `rounds` asks until the answers decide;
`power` says what a suite can show; `answers` what follows from all answers together.
"""

from eval_ops.scores import answers, gates, leaderboard, power, rounds
from eval_ops.scores.comparison import Comparison as Comparison
from eval_ops.scores.comparison import compare
from eval_ops.scores.scores import Mean as Mean
from eval_ops.scores.scores import Sample, SuiteScores, scores_digest, summarize
from eval_ops.scores.scores import Score as Score

__all__ = [
    "Sample",
    "SuiteScores",
    "answers",
    "compare",
    "gates",
    "leaderboard",
    "power",
    "rounds",
    "scores_digest",
    "summarize",
]
