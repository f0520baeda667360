"""What came out: scores with intervals, paired comparisons, gates, the leaderboard."""
