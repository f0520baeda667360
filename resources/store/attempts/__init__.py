"""Attempts: files being written, their owners and journals, and what killed ones left."""
