"""The commands that show a catalog in a browser: the site, the report, Dagster's page."""
