"""A tiny training run of twelve steps in a catalog, with windows over it by several schedules."""
