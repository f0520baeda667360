"""From checkpoints to scores: of one, of a set in rounds, of a search's points."""
