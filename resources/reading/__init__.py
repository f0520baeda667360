"""Bytes of published artifacts, checked while they are read."""
