"""Real, tiny Chinese models to merge, trained on the spot: `python -m examples.quickstart`."""
