"""The config.json of a model: what it claims and means, and how a merged one is written."""
