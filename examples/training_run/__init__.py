"""A tiny training run of twelve steps, and windows over it by several schedules."""
