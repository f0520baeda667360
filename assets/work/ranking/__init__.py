"""From scores to the leaderboard and to champions, and what follows from all answers."""
