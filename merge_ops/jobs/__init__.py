"""Verbs on whole models: merging, averaging adapters, extraction, packing, verification."""
