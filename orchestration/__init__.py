"""The command line, the catalog and the one Definitions."""
