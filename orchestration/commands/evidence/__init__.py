"""The commands on scores, comparisons, the leaderboard and champions."""
