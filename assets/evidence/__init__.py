"""Assets of evidence: scores, searches, champions with their gates, and the leaderboard."""
