"""Tokenizers, merged vocabularies and chat templates."""
