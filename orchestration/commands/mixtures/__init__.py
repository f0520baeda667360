"""The commands that measure mixtures of experts."""
