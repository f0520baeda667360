"""Tokenizers, merged vocabularies and chat templates."""

from merge_ops.vocabularies import chat_templates
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer

__all__ = ["OutputTokenizer", "chat_templates"]
