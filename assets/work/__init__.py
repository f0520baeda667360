"""The work that the assets do. Knows no Dagster."""
