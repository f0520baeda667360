"""From recipes and an expert set to checkpoints: written, virtual, or in memory."""
